"""How well a final run tells images of no class from its test set."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.data.image_set import Images
from nc_tools.evaluation.evaluator import collect, ood_metrics
from nc_tools.experiment.build import Data
from nc_tools.models.classifier import Classifier
from nc_tools.records import Collected
from nc_tools.seeds import stream

MOST = 10_000
"""Images of a set of outliers, the same for every run where there are more."""


def measure_ood(
    data: Data, model: Classifier, train: Collected, test: Collected, dtype: torch.dtype
) -> dict[str, float]:
    """Measure every out-of-distribution set of a run; no values where it has none.

    Scores are fitted on the training subset with the labels that training sees. No image of the sets was trained on or
    tuned with.
    """
    sets = data.sources.ood
    if not sets:
        return {}
    collected = {name: collect(model, data.plain_batches(s, _some(s)), dtype=dtype) for name, s in sets.items()}
    return ood_metrics(model, train, test, collected, "test")


def _some(images: Images) -> Tensor:
    if len(images) <= MOST:
        return torch.arange(len(images))
    return torch.randperm(len(images), generator=stream(0, "subsample"))[:MOST].sort().values
