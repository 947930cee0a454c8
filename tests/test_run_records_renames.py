"""Records of version 0.1.0 stay readable: the table of renames, and a folder that was written before them."""

import dataclasses
import importlib
import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nc_tools import cli
from nc_tools.comparison import compare, write_comparison
from nc_tools.data import ColorJitter, DataConfig, Mixup, load_data
from nc_tools.experiment import ModelConfig, RunConfig, TunedParameter, load_run
from nc_tools.experiment.deserialize import decode
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import ClassCompactnessLoss, CrossEntropyLoss, FocalLoss, WeightedSumLoss, term
from nc_tools.run_records.reader import scan
from nc_tools.run_records.renames import CLASSES, FIELDS, TRIAL, current_names, current_tuning
from nc_tools.schedules import CosineSchedule
from nc_tools.specs import Spec, spec
from nc_tools.training import OptimConfig, SharpnessAware, TauNormalize, TrainConfig

FOLDER = Path(__file__).parent / "data" / "records_0_1"
DATA = DataConfig("digits", held_out_classes=7, color_jitter=ColorJitter(0.2), class_counts=(40, 20, 12))
LINEAR = RunConfig(
    data=DATA,
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(name="conv", width=2),
    training=TrainConfig(epochs=2, batch_size=16),
)
ARMS = {
    "linear": LINEAR,
    "etf": dataclasses.replace(
        LINEAR,
        head=spec(ETFHead, normalize=False),
        loss=spec(
            WeightedSumLoss,
            terms=(term(1.0, spec(CrossEntropyLoss)), term(CosineSchedule(0.0, 0.1), spec(ClassCompactnessLoss))),
        ),
        optim=OptimConfig(sam=SharpnessAware(0.05)),
        tuned=TunedParameter(path="head.scale", values=(4.0, 16.0)),
    ),
    "focal_tau": dataclasses.replace(
        LINEAR,
        loss=spec(FocalLoss, gamma=1.0),
        training=dataclasses.replace(LINEAR.training, mixing=Mixup(0.2)),
        second_stage=TauNormalize(tau=0.5),
    ),
}


def class_at(path):
    module, _, name = f"nc_tools.{path}".rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("old", CLASSES)
def test_every_renamed_class_is_there(old):
    assert isinstance(class_at(CLASSES[old]), type)
    kind = "class" if old.startswith(("heads.", "losses.")) else "dataclass"
    written = {"class": f"nc_tools.{old}", "arguments": {}} if kind == "class" else {"dataclass": f"nc_tools.{old}"}
    assert current_names(written)[kind] == f"nc_tools.{CLASSES[old]}"


@pytest.mark.parametrize("path", FIELDS)
def test_every_renamed_field_is_there_under_its_new_name_only(path):
    assert path in CLASSES.values()
    names = inspect.signature(class_at(path)).parameters
    assert set(FIELDS[path].values()) <= set(names)
    assert not set(FIELDS[path]) & set(names)


def test_old_arms_are_read_as_today_they_would_be_written():
    written = json.loads((FOLDER / "arms.json").read_text())["arms"]
    assert {name: decode(config) for name, config in written.items()} == ARMS


def test_names_of_other_packages_are_left_alone():
    own = {"class": "heads.etf.ETFHead", "arguments": {"normalise": False}}
    assert current_names(own) == own
    nested = {
        "class": "my_heads.Own",
        "arguments": {"parts": [{"class": "nc_tools.losses.focal.Focal", "arguments": {}}]},
    }
    assert current_names(nested)["arguments"]["parts"][0]["class"] == "nc_tools.losses.FocalLoss"
    sgd = {"class": "torch.optim.sgd.SGD", "arguments": {}}
    assert decode(sgd, Spec[torch.optim.Optimizer]) == Spec(torch.optim.SGD, {})


RUNS = sorted(path.parent.name for path in FOLDER.glob("runs/*/weights.safetensors"))


@pytest.mark.parametrize("run", RUNS)
def test_an_old_model_gives_the_logits_that_were_recorded(run):
    trained = load_run(FOLDER / "runs" / run)
    arm = run.partition("-")[0]
    loaded = dataclasses.replace(trained.config, tuned=ARMS[arm].tuned)
    if arm == "etf":
        assert trained.config.head.arguments == {"normalize": False, "scale": 16.0}  # as it was tuned
        loaded = dataclasses.replace(loaded, head=ARMS[arm].head)
    assert loaded == ARMS[arm]
    stored = load_file(FOLDER / "runs" / run / "predictions.safetensors")
    test = load_data(trained.config.data).test
    assert torch.equal(test.labels, stored["test_labels"])
    # Equal to the last bit where they were made; another processor may round differently.
    torch.testing.assert_close(trained.predict(test.images), stored["test_logits"], rtol=1e-4, atol=1e-4)


def test_there_are_two_such_models():
    assert [run.partition("-")[0] for run in RUNS] == ["etf", "focal_tau"]


def test_an_old_folder_is_compared(tmp_path):
    runs = scan(FOLDER).runs
    assert len(runs) == 7
    assert {run.status for run in runs} == {"FINISHED"}
    comparison = compare(FOLDER)
    assert list(comparison.cells) == ["linear", "etf", "focal_tau"]
    assert all(len(cells) == 2 for cells in comparison.cells.values())
    trials = comparison.experiment.tuning["trials"]
    assert {trial["parameter"] for trial in trials} == {"optim.weight_decay", "head.scale"}
    # The values of a tuned parameter may differ between arms, all else is named.
    differing = " ".join(caution.text for caution in comparison.cautions if caution.kind == "confounded")
    assert "optim.sharpness.rho" in differing
    assert "weight_decay" not in differing
    write_comparison(comparison, tmp_path)
    assert "head.scale = 16.0" in (tmp_path / "comparison.html").read_text()


def test_trials_of_both_versions_have_todays_keys():
    old, new = [{"arm": "etf", key: "head.scale"} for key in ("knob", "parameter")]
    assert TRIAL == {"knob": "parameter"}
    assert current_tuning({"trials": [old, new], "grid": [0.1]}) == {"trials": [new, new], "grid": [0.1]}
    assert current_tuning({}) == {}


@pytest.mark.slow
def test_the_command_reads_an_old_folder(tmp_path, capsys):
    shutil.copytree(FOLDER, tmp_path / "records")
    cli.main(["compare", str(tmp_path / "records"), "--details"])
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "every arm against linear" in shown.out
    assert (tmp_path / "records" / "report" / "comparison.html").exists()
