"""The samples that the heads of one seed are trained and scored on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from nc_tools.data.image_set import Images
from nc_tools.data.mixing import Batches
from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.job import Job, JobKind
from nc_tools.experiment.on_features.feature_data import FeatureData
from nc_tools.features import FeatureSet
from nc_tools.training import StartSamples

_SCALED_AT_ONCE = 2**24
"""Largest number of features that are scaled before training; of larger sets, every batch is scaled when it is read."""


TRIAL_SEEDS = 1_000_000
"""A seed plus this number is the seed of initial weights, order and frames of its tuning trials."""


@dataclass(frozen=True, eq=False)
class HeadSamples:
    """The samples that the heads of one seed are trained on, and those that they are scored on.

    Attributes:
        data: The feature sets of the seed.
        indices: The samples trained on (M,), int64.
        scored: Whether heads are scored on the hold-out after every epoch.
    """

    data: FeatureData
    indices: Tensor
    scored: bool

    @cached_property
    def facts(self) -> DataFacts:
        """Facts about the data, with the class counts of the samples trained on."""
        return self.data.facts(self.indices)

    @cached_property
    def scaling(self) -> nn.Module:
        """What comes before the heads, fitted to the samples trained on."""
        return self.data.scaling(self.indices, standardize=self.data.config.model.standardize)

    @property
    def scaled_before(self) -> bool:
        """Whether the batches hold scaled features."""
        train = self.data.train
        return len(self.indices) * train.views * train.shape[0] <= _SCALED_AT_ONCE

    @cached_property
    def batches(self) -> Batches:
        """One loader for all heads: they read the same samples in the same order."""
        if not self.scaled_before:
            return self.data.training_batches(self.indices)
        train, count = self.data.train, len(self.indices)
        parts = [self._scaled(train.take(self.indices, torch.full((count,), view))) for view in range(train.views)]
        rows = torch.zeros(len(train), dtype=torch.int64)  # those of the other samples are not read
        rows[self.indices] = torch.arange(count)
        part = FeatureSet(
            parts[0] if train.views == 1 else torch.cat(parts), train.labels, train.classes, train.name, rows=rows,
            further_rows=None if train.views == 1 else rows + count * torch.arange(1, train.views).unsqueeze(1),
        )  # fmt: skip
        sources = replace(self.data.sources, train=cast(Images, part))
        return replace(self.data, sources=sources).training_batches(self.indices)

    @torch.no_grad()
    def _scaled(self, features: Tensor) -> Tensor:
        scaled: Tensor = self.scaling(features.to(self.data.device))
        return scaled.cpu()

    @cached_property
    def start(self) -> StartSamples:
        """The samples trained on as a whole, for heads that are computed."""
        batches = list(self.data.plain_batches(self.data.sources.train, self.indices))
        with torch.no_grad():
            features = torch.cat([self.scaling(batch.inputs) for batch in batches])
        return StartSamples(features, torch.cat([batch.labels for batch in batches]), self.data.train.num_classes)

    @cached_property
    def holdout(self) -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of the hold-out."""
        index, train = self.data.subsets.holdout, self.data.train
        return train.take(index).to(self.data.device), train.labels[index].to(self.data.device)


class SeedSamples:
    """The samples of one seed with the labels of one arm, for each kind of run.

    Args:
        data: The feature sets of the seed.

    Attributes:
        trials: Samples of tuning trials, which have orders of their own.
        holdouts: Samples of hold-out runs.
        finals: Samples of final runs.
    """

    def __init__(self, data: FeatureData) -> None:
        own_order = replace(data, seed=data.seed + TRIAL_SEEDS)
        self.trials = HeadSamples(own_order, data.subsets.fit, scored=True)
        self.holdouts = HeadSamples(data, data.subsets.fit, scored=True)
        self.finals = HeadSamples(data, data.subsets.train, scored=False)

    def of(self, kind: JobKind) -> HeadSamples:
        """Return the samples of a kind of run."""
        return {"tuning": self.trials, "holdout": self.holdouts, "final": self.finals}[kind]


def data_seed(job: Job) -> int:
    """Return the seed of the hold-out of a run: its own, but for tuning trials."""
    return job.seed - TRIAL_SEEDS if job.kind == "tuning" else job.seed
