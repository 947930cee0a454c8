"""Damaged and hostile output folders: each is read, or refused in one sentence that names the file; none runs code."""

import json
import os
import random
import resource
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from support.hostile_records import (
    NOT_READ,
    PROGRAM,
    READERS,
    RECORDS,
    RUN,
    Hostile,
    hostile_records,
    marker,
    outcome,
)

from nc_tools import cli
from nc_tools._support.damaged_file import DamagedFileError
from nc_tools.data.decoded_cache import CachedImages, read_cache, write_cache
from nc_tools.experiment import ModelConfig, load_run
from nc_tools.experiment.evaluate.holdout_record import holdout_transitions, holdout_value
from nc_tools.experiment.run_backbone import restored_backbone
from nc_tools.experiment.stage_checkpoints import StageCheckpoints
from nc_tools.heads import ETFHead
from nc_tools.models.image_preprocessing import ImagePreprocessing
from nc_tools.training.checkpoint import load_checkpoint, save_checkpoint

ALL = hostile_records()
# A few of each kind, for two readers; the slow test takes all that are certainly damaged, and the other readers.
CHOSEN = random.Random(0).sample(ALL, 60)
QUICK = ("load_run", "sync")


def concerns(case: Hostile, reader: str) -> bool:
    """Whether a reader opens the damaged file; a pipe stops whoever opens it, and so is tried with all readers."""
    return Path(case.file).name not in NOT_READ[reader] or case.name.endswith("is a pipe")


def check(case: Hostile, reader: str, folder: Path) -> None:
    root = case.make(folder / "output")
    done = outcome(reader, root)
    file = Path(case.file).name
    if case.unreadable and file not in NOT_READ[reader]:
        assert file in done.text, (case.name, done)
    if case.name.startswith(PROGRAM) and reader in ("load_run", "measure"):
        needed = "data.name" not in case.name  # of all these fields, no model needs the name of its data
        assert (done.refused, "run.json" in done.text) == (needed, needed)
    assert not marker(root).exists()


def test_there_are_hundreds_of_them_with_names_of_their_own():
    assert len(ALL) > 600
    assert len({case.name for case in ALL}) == len(ALL)
    assert {Path(case.file).name for case in CHOSEN} == {Path(case.file).name for case in ALL}


@pytest.mark.parametrize("reader", READERS)
def test_the_undamaged_folder_is_read(tmp_path, reader):
    shutil.copytree(RECORDS, tmp_path / "output")
    assert not outcome(reader, tmp_path / "output").refused


@pytest.mark.parametrize(
    ("case", "reader"),
    [(case, reader) for case in CHOSEN for reader in QUICK if concerns(case, reader)],
    ids=lambda value: getattr(value, "name", value),
)
def test_readers(tmp_path, case, reader):
    check(case, reader, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [case for case in ALL if case.unreadable or case in CHOSEN], ids=lambda case: case.name
)
def test_all_readers(tmp_path, case):
    readers = [one for one in READERS if concerns(case, one)]
    for reader in [one for one in readers if not (case in CHOSEN and one in QUICK)]:
        check(case, reader, tmp_path / reader)


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in ALL if c.name.startswith(PROGRAM)], ids=lambda case: case.name)
def test_no_program_runs_wherever_a_record_names_it(tmp_path, case):
    for reader in READERS:
        check(case, reader, tmp_path / reader)


def test_own_classes_are_loaded_by_the_command_if_the_user_names_their_module(tmp_path, monkeypatch, capsys):
    shutil.copytree(RECORDS / RUN, tmp_path / "run")
    run_json = tmp_path / "run" / "run.json"
    text = run_json.read_text().replace("nc_tools.heads.etf.ETFHead", "my_own_heads.MyHead")
    run_json.write_text(text.replace("normalise", "normalize"))  # of version 0.1, for the head of nc_tools only
    (tmp_path / "my_own_heads.py").write_text(
        "from nc_tools.heads import ETFHead\n\n\nclass MyHead(ETFHead):\n    '''A head.'''\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["measure", "--model", "run", "--layers", "none", "--out", "measured"]
    with pytest.raises(SystemExit):
        cli.main(arguments)
    refused = capsys.readouterr().err
    assert "got the class 'my_own_heads.MyHead': if you wrote this class, pass its module" in refused
    assert "--modules my_heads" in refused
    assert "my_own_heads" not in sys.modules
    cli.main([*arguments, "--modules", "my_own_heads"])
    assert (tmp_path / "measured" / "collapse.html").exists()
    model = load_run("run", modules=[sys.modules.pop("my_own_heads")]).model
    assert isinstance(model.head, ETFHead)
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--modules", "no_such_module_x"])
    assert "no_such_module_x" in capsys.readouterr().err


def with_values(root: Path, **values: int) -> Path:
    """A run whose record names sizes; two underscores stand for a dot."""
    shutil.copytree(RECORDS / RUN, root)
    content = json.loads((root / "run.json").read_text())
    for name, value in values.items():
        section, key = name.split("__")
        (content["data"] if section == "data" else content["config"][section])[key] = value
    (root / "run.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    "values",
    [{"data__image_size": 30_000}, {"model__width": 20_000}, {"data__image_size": 10**9}, {"model__width": 10**12}],
    ids=str,
)
def test_sizes_that_a_record_names_do_not_fill_the_memory(tmp_path, values):
    run = with_values(tmp_path / "run", **values)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedFileError, match=r"the model of .*run\.json cannot be built"):
        load_run(run)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # in KiB on Linux
    assert grown < 3 * 2**20


def test_the_settings_of_a_hugging_face_network_reach_no_other_repository(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("timm")
    reached = []

    def no_network(host, *_, **__):
        reached.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    (tmp_path / "backbone").mkdir()
    settings = {"model_type": "timm_wrapper", "architecture": "hf-hub:somebody/else", "num_classes": 3}
    (tmp_path / "backbone" / "config.json").write_text(json.dumps(settings))
    sizes = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "backbone" / "preprocessor_config.json").write_text(json.dumps(sizes))
    images = ImagePreprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=32, resize_size=32)
    model = ModelConfig(name="hf:somebody/network", weights="pretrained")
    with pytest.raises(ValueError, match="cannot be read"):
        restored_backbone(model, images, tmp_path, in_channels=3, image_size=32, num_samples=10)
    assert reached == []
    os.mkfifo(tmp_path / "backbone" / "processor_config.json")
    with pytest.raises(DamagedFileError, match="is a pipe"):
        restored_backbone(model, images, tmp_path, in_channels=3, image_size=32, num_samples=10)


CHECKPOINTS = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "no checkpoint": lambda path: path.write_bytes(b"not a checkpoint" * 100),
    "a pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR."),
    "a list": lambda path: torch.save([1, 2], path),
    "without epochs": lambda path: torch.save({"step": 3}, path),
    "with epochs in words": lambda path: torch.save({"step": 3, "epochs_done": "two"}, path),
    "with negative epochs": lambda path: torch.save({"step": 3, "epochs_done": -2}, path),
    "a program": lambda path: torch.save({"epochs_done": Path("x")}, path),
}


@pytest.mark.parametrize("damage", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_damaged_checkpoints_are_named_with_the_way_out(tmp_path, damage):
    checkpoints = StageCheckpoints(tmp_path)
    save_checkpoint(checkpoints.main, {"step": 3, "epochs_done": 1})
    assert checkpoints.epochs_done() == 1
    damage(checkpoints.main)
    with pytest.raises(DamagedFileError) as refused:
        checkpoints.epochs_done()
    text = str(refused.value)
    assert text.startswith(f"cannot resume from the checkpoint {checkpoints.main} (")
    assert text.endswith("Delete it to train from the start")
    assert len(text.splitlines()) == 1
    assert len(text) < 500
    assert "weights_only" not in text  # advice that would run code


def test_a_compressed_checkpoint_is_refused_before_it_fills_the_memory(tmp_path):
    import zipfile

    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"zeros": torch.zeros(10**6)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    assert (tmp_path / "small.pt").stat().st_size < path.stat().st_size / 100
    assert load_checkpoint(path)["zeros"].numel() == 10**6
    with pytest.raises(DamagedFileError, match="it is compressed"):
        load_checkpoint(tmp_path / "small.pt")


HOLDOUT = RECORDS / "runs" / "etf-s0-d0-holdout-eaaef3fd"


def test_what_a_final_run_needs_of_its_holdout_run_is_named_if_it_is_not_there(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(HOLDOUT, folder)
    assert holdout_value(folder, "best/epoch") in (1, 2)
    for text in ("{}", '{"best/epoch": null}', '{"best/epoch": NaN}'):
        (folder / "final.json").write_text(text)
        with pytest.raises(DamagedFileError, match=r"final\.json holds no number for 'best/epoch'.* Delete the folder"):
            holdout_value(folder, "best/epoch")
    with pytest.raises(FileNotFoundError):
        holdout_transitions(folder, ["confusion"], 3)
    (folder / "transition.safetensors").write_bytes(b"nothing")
    with pytest.raises(DamagedFileError, match=r"transition\.safetensors cannot be read"):
        holdout_transitions(folder, ["confusion"], 3)


@pytest.mark.parametrize("name", ["empty", "half", "zeros", "a folder", "a pipe", "an endless device", "other bytes"])
def test_a_damaged_cache_of_decoded_images_is_no_cache(tmp_path, name):
    damage = next(c.damage for c in ALL if c.name == f"weights.safetensors is {name}")
    path = tmp_path / "cache.safetensors"
    sums = {"sums": torch.zeros(3, 1, 2), "hashes": torch.zeros(3, 32)}
    write_cache(path, "key", CachedImages(sums, {}, {}))
    assert read_cache(path, "key", pixels=False) is not None
    damage(path)
    assert read_cache(path, "key", pixels=False) is None
