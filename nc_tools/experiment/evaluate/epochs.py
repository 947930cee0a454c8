"""What a run measures at the end of an epoch: the hold-out, and collapse at some of the epochs."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.models.classifier import Classifier
from nc_tools.seeds import stream


class EpochEvaluation:
    """Measures the model of an epoch, for the curves in a run's record.

    Final runs are measured on some training images; hold-out runs on these and on the hold-out; tuning trials only on
    the hold-out, and only if they may stop early.

    Args:
        job: The run.
        data: Its images.
        facts: Facts of the samples trained on.
        indices: The samples trained on (M,), int64.
    """

    def __init__(self, job: Job, data: RunData, facts: DataFacts, indices: Tensor) -> None:
        self.job = job
        self.data = data
        self.facts = facts
        self.curve_epochs = curve_epochs(job.config.epochs, job.protocol.curve_points)
        self.train = EvaluationSet("train", data.sources.train, self._sample(indices))
        self.holdout = EvaluationSet("holdout", data.sources.train, data.subsets.holdout)

    def __call__(self, epoch: int, model: Classifier) -> dict[str, float]:
        """Return the metrics of an epoch, counted from 1."""
        evaluator = self.data.evaluator(model, self.facts)
        values: dict[str, float] = {}
        stops_early = self.job.config.training.patience is not None and self.job.kind == "tuning"
        if self.job.kind == "holdout" or stops_early:
            values |= evaluator.accuracy(self.holdout)
        if self.job.kind != "tuning" and epoch in self.curve_epochs:
            values |= self._collapse(evaluator)
        return values

    def _collapse(self, evaluator: Evaluator) -> dict[str, float]:
        parts = [self.train, self.holdout] if self.job.kind == "holdout" else [self.train]
        noise = {key: value for part in parts for key, value in evaluator.label_noise(part).items()}
        values = {key: value for part in parts for key, value in evaluator.collapse(part).items()}
        values |= evaluator.by_frequency(self.train)
        # The other metrics are measured at the end of a run: as curves they would double what MLflow has to store.
        kept = {k: value for k, value in values.items() if "/nc/" in k and not k.endswith("_pooled")}
        return noise | kept | {k: value for k, value in values.items() if k.startswith("head/")}

    def _sample(self, indices: Tensor) -> Tensor:
        """Return at most ``protocol.curve_samples`` of the indices, the same at every epoch."""
        most = self.job.protocol.curve_samples
        if len(indices) <= most:
            return indices
        chosen = torch.randperm(len(indices), generator=stream(self.job.seed, "subsample"))[:most]
        return indices[chosen.sort().values]


def curve_epochs(epochs: int, points: int) -> set[int]:
    """Return about ``points`` epochs from 1 to the last, at equal ratios: collapse changes fastest at the start.

    Example:
        >>> sorted(curve_epochs(100, 5))
        [1, 3, 10, 32, 100]
    """
    if points < 2:
        return {epochs}
    return {round(epochs ** (i / (points - 1))) for i in range(points)}
