"""Every head and every loss of the package is an arm of a recipe: it trains, is measured, and is recorded whole."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.experiment_runs import PROTOCOL, job_of, make, recipe
from support.loss_variants import PACKAGE_LOSSES
from support.package_heads import head_classes

from nc_tools.evaluation.collect import collect
from nc_tools.experiment import ModelConfig, RunConfig, load_run
from nc_tools.experiment.run_data import open_data
from nc_tools.losses import CrossEntropyLoss, WeightedSumLoss, term
from nc_tools.run_records import read_run
from nc_tools.specs import Spec, spec

pytestmark = pytest.mark.slow  # about a second for each arm

# A hundred digits, the rarest class with 4, and a network of 16 features.
ARM: RunConfig = replace(
    recipe.BASE,
    data=replace(
        recipe.BASE.data,
        class_counts=(20, 18, 15, 12, 10, 8, 6, 5, 4, 4),
        imbalance=1.0,
        held_out_classes=0,
        outliers="blended",
    ),
    training=replace(recipe.BASE.training, epochs=1),
    model=ModelConfig(name="conv", width=4),
)
FILES = {
    "final.json", "metrics.jsonl", "per_class.json", "predictions.safetensors", "run.json", "status.json",
    "weights.safetensors", "mistakes.safetensors",
}  # fmt: skip


def loss_of(cls: type[Any]) -> Spec[Any]:
    """Return a spec of a loss as a user writes it; a sum has no default terms."""
    terms = (term(1.0, spec(CrossEntropyLoss)), term(0.5, spec(CrossEntropyLoss, label_smoothing=0.1), name="soft"))
    return spec(cls, terms=terms) if cls is WeightedSumLoss else Spec(cls)


def check_run(root: Path, config: RunConfig) -> None:
    # A network of one epoch decides too few classes for a transition matrix; smoke runs do not check it either.
    protocol = replace(PROTOCOL, check_transition=False)
    result, progress = make(replace(job_of(root, "final", "arm", config=config), protocol=protocol))
    folder = result.run
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES
    assert read_run(folder).status == "FINISHED"
    assert len(progress) >= 1
    (epoch,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert math.isfinite(epoch["values"]["train/loss"])
    final = json.loads((folder / "final.json").read_text())
    assert {"test/gen/balanced_accuracy", "test/cal/nll", "test/nc/nc1_pinv"} <= final.keys()
    assert all(value is None or math.isfinite(value) for value in final.values() if not isinstance(value, str))
    # The record holds the model: loaded again, it gives the recorded logits.
    data = open_data(config, seed=0, device=torch.device("cpu"), cache=root)
    model = load_run(folder).model.eval()
    again = collect(model, data.plain_batches(data.sources.test), dtype=torch.float32)
    assert torch.allclose(again.logits, load_file(folder / "predictions.safetensors")["test_logits"], atol=1e-4)


@pytest.mark.parametrize("cls", head_classes(), ids=lambda cls: cls.__name__)
def test_every_head_is_an_arm(cls: type[Any], tmp_path: Path) -> None:
    check_run(tmp_path, replace(ARM, head=Spec(cls)))


@pytest.mark.parametrize("cls", PACKAGE_LOSSES, ids=lambda cls: cls.__name__)
def test_every_loss_is_an_arm(cls: type[Any], tmp_path: Path) -> None:
    check_run(tmp_path, replace(ARM, loss=loss_of(cls)))
