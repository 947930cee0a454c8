"""Batches of features, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nc_tools.data.epoch_plan import batch_bounds, check_start, plan_epoch
from nc_tools.data.sampling import EpochSampler, Sampling
from nc_tools.features.feature_set import FeatureSet
from nc_tools.records import Batch
from nc_tools.seeds import stream


class FeatureLoader:
    """Training batches of a feature set, in the order in which an image loader with the same seed reads its images.

    Of a set with several views, an epoch takes one view of each sample, drawn with equal probability from the stream
    "augment", as crop and flip of images are: by seed, epoch and place in the order alone. So all trainings with one
    seed get the same views, an epoch can resume at any step, and a sample that is drawn twice can have two views.

    Args:
        features: The whole training set.
        indices: Indices of the samples to train on (M,), int64.
        batch_size: Samples in a batch. The batches of an epoch differ in size by at most one.
        seed: The run's seed, from which the order is drawn.
        sampling: How often each class is drawn, or None for each sample once an epoch.
        epochs: Epochs of the whole training, which ``ProgressiveSampling`` needs.
        device: Where the batches go.

    Example:
        >>> part = FeatureSet(torch.eye(5), torch.zeros(5).long(), ("a",), "five")
        >>> [len(batch.labels) for batch in FeatureLoader(part, torch.arange(5), batch_size=2, seed=0).epoch(0)]
        [2, 3]
    """

    def __init__(
        self,
        features: FeatureSet,
        indices: Tensor,
        *,
        batch_size: int,
        seed: int,
        sampling: Sampling | None = None,
        epochs: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._features = features
        self._indices = indices
        self._seed = seed
        self._device = torch.device(device)
        self._bounds = batch_bounds(len(indices), batch_size)
        labels = features.labels[indices]
        self._sampler = None if sampling is None else EpochSampler(labels, sampling, seed, epochs)

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return len(self._bounds)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on; they depend on seed and epoch alone.

        Raises:
            ValueError: If the epoch has no such step.
        """
        check_start(start, len(self))
        order = plan_epoch(len(self._indices), None, self._seed, epoch, 1, self._sampler).order
        chosen, views = self._indices[order], self._features.views
        if views == 1:
            return (self._batch(chosen[begin:end]) for begin, end in self._bounds[start:])
        view = torch.randint(views, chosen.shape, generator=stream(self._seed, "augment", epoch))
        return (self._batch(chosen[begin:end], view[begin:end]) for begin, end in self._bounds[start:])

    def _batch(self, index: Tensor, view: Tensor | None = None) -> Batch:
        features, labels = self._features.take(index, view), self._features.labels[index]
        return Batch(features.to(self._device), labels.to(self._device), index.to(self._device))


def feature_batches(
    features: FeatureSet, indices: Tensor | None, batch_size: int, device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """Yield batches for evaluation: the samples at ``indices`` (M,), or all of them, in order."""
    index = torch.arange(len(features)) if indices is None else indices
    for part in torch.split(index, batch_size) if len(index) else ():
        yield Batch(features.take(part).to(device), features.labels[part].to(device), part.to(device))
