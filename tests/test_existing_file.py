"""A file that the user names is missing, or is something else: every reader says which."""

from pathlib import Path

import pytest

from nc_tools._support.existing_file import check_file
from nc_tools.data.table_text import read_grids
from nc_tools.experiment.check_model import check_model
from nc_tools.experiment.model_config import ModelConfig
from nc_tools.features import read_embeddings
from nc_tools.models.state_dict_files import read_state_dict

READERS = {
    "table": read_grids,
    "embedding file": read_embeddings,
    "weights file": read_state_dict,
    "model": lambda path: check_model(ModelConfig(name="timm:test_resnet", weights=str(path))),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_folder_or_device_in_the_place_of_a_file_is_named(read, tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder: give the path of a file"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="/dev/null is no regular file: give the path of a file"):
        read(Path("/dev/null"))
    with pytest.raises(FileNotFoundError, match="does not exist: check "):
        read(tmp_path / "nothing")


def test_a_file_is_taken(tmp_path):
    (tmp_path / "list.txt").write_text("x")
    check_file(tmp_path / "list.txt", "table")
