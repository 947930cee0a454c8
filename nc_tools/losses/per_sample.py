"""Losses that are a mean over samples, and weighted means."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, overload

import torch
from torch import Tensor

from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


class PerSampleLoss(LossTerm):
    """The base of losses with one value for each sample. The loss of a batch is their mean.

    Losses that weight samples accept any of these, such as :class:`~nc_tools.losses.DeferredReweightingLoss`. A loss of
    your own overrides :meth:`compute_per_sample`.
    """

    @abstractmethod
    def compute_per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample (N,).

        Override this, and call :meth:`per_sample`: that checks the labels first.
        """

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the batch."""
        return self.compute_per_sample(outputs, batch).mean()

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Return the loss of each sample (N,) from logits and labels alone, where that is possible.

        Raises:
            TypeError: If the loss needs more than logits.
        """
        raise self.needs_records()

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean of :meth:`per_sample_from_logits`."""
        return self.per_sample_from_logits(logits, labels).mean()

    @overload
    def per_sample(self, outputs: Outputs, batch: Batch, /) -> Tensor: ...
    @overload
    def per_sample(self, logits: Tensor, labels: Tensor, /) -> Tensor: ...
    def per_sample(self, outputs: Any, batch: Any, /) -> Tensor:
        """Return the loss of each sample (N,). Takes the same arguments, with the same checks, as the loss itself."""
        return self._checked_call(self.compute_per_sample, self.per_sample_from_logits, outputs, batch)


def weighted_mean(values: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Return the mean of values v with class weights w: sum_i w_{y_i} v_i / sum_i w_{y_i}.

    The sum in the denominator is over the batch, as in ``torch.nn.functional.cross_entropy(weight=...)``, so that the
    weights change the shares of the classes and not the learning rate.

    Args:
        values: (N,).
        labels: (N,), int64.
        class_weights: (K,), positive.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
        tensor(1.7500)
    """
    weights = class_weights.to(values.dtype).index_select(0, labels)
    return torch.dot(weights, values) / weights.sum()


def class_mean(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the mean of values over each class's samples, then over the classes of the batch.

    A class without a sample in the batch does not count.

    Args:
        values: (N,).
        labels: (N,), int64.
        num_classes: K.

    Example:
        >>> class_mean(torch.tensor([1.0, 3.0, 6.0]), torch.tensor([0, 0, 2]), 3)
        tensor(4.)
    """
    counts = torch.zeros(num_classes, dtype=values.dtype, device=values.device)
    counts = counts.index_add(0, labels, torch.ones_like(values.detach()))
    return (values / counts.index_select(0, labels)).sum() / (counts > 0).sum()
