"""How well a final run separates out-of-distribution images from its test set."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.data import Sources
from nc_tools.data.image_set import Images
from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.run_config import Protocol
from nc_tools.experiment.run_data import RunData
from nc_tools.seeds import stream

OOD_SAMPLES = 10_000
"""Largest number of images of an out-of-distribution set; of a larger set, every run uses the same ones."""


def check_outlier_sets(protocol: Protocol, sources: Sources) -> None:
    """Raise a ValueError if outliers decide the comparison and the data have none of them."""
    parts = protocol.primary.split("/")
    if parts[:2] != ["test", "ood"] or (sources.ood and (parts[2] == "mean" or parts[2] in sources.ood)):
        return
    given = f"only {', '.join(sources.ood)}" if sources.ood else "none"
    raise ValueError(
        f"protocol.primary={protocol.primary} needs images of unknown classes to score, but the data have {given}: "
        "hold classes out with --set data.held_out_classes=N, give --set data.ood_near=DATA or data.ood_far=DATA, or "
        "decide by another metric with --set protocol.primary=test/gen/balanced_accuracy"
    )


def evaluate_ood(data: RunData, evaluator: Evaluator, train: EvaluationSet, test: EvaluationSet) -> dict[str, float]:
    """Return the detection metrics of every out-of-distribution set of a run; empty where it has none.

    Scores are fitted on the training subset with the labels that training uses. No image of these sets was trained on
    or tuned with.
    """
    sets = {name: EvaluationSet(name, images, _sample(images)) for name, images in data.sources.ood.items()}
    return evaluator.ood(train, test, sets) if sets else {}


def _sample(images: Images) -> Tensor | None:
    if len(images) <= OOD_SAMPLES:
        return None
    return torch.randperm(len(images), generator=stream(0, "subsample"))[:OOD_SAMPLES].sort().values
