"""Check that the network of a configuration exists, without building or downloading it."""

from __future__ import annotations

from pathlib import Path

from nc_tools._support.existing_file import check_file
from nc_tools.experiment.model_config import ModelConfig
from nc_tools.models.backbones import check_name, check_takes_weights


def check_model(model: ModelConfig) -> None:
    """Raise an error if there is no network of this name, or no file of these weights.

    Raises:
        ValueError: If there is no such network (similar names are suggested), or a network without a library shall be
            downloaded.
        FileNotFoundError: If the weights file or the folder of a Hugging Face model is missing.
    """
    if model.network is None:
        check_name(model.name)
    source = model.weights_source
    if source is not None and not model.is_own:
        check_takes_weights(model.name)
    if isinstance(source, Path) and not source.exists():
        raise FileNotFoundError(
            f"the weights file {source} does not exist: check its path, or write 'pretrained' for the library's own"
        )
    if isinstance(source, Path):
        check_file(source, "weights file")
