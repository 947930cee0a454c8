"""Losses that are a mean over samples, and the means they can be."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from nc_tools.losses.loss_term import LossTerm, widen
from nc_tools.records import Batch, Outputs


class PerSampleLoss(LossTerm):
    """A loss with one value per sample, of which the batch's loss is the mean.

    What re-weights classes or leaves samples out takes any of these, such as
    :class:`~nc_tools.losses.DeferredReweightingLoss`.
    """

    @abstractmethod
    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample (N,)."""

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return self.per_sample(outputs, batch).mean()


def checked_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits, at least float32, after a look at shapes and types alone: nothing waits for the device.

    Args:
        logits: (N, K).
        labels: (N,), int64.

    Raises:
        TypeError: If the labels are not class indices.
        ValueError: If the shapes do not fit.

    Example:
        >>> checked_logits(torch.zeros(2, 3), torch.full((2, 3), 1 / 3))
        Traceback (most recent call last):
        ...
        TypeError: labels must be class indices (N,) of integer type, got torch.float32 of shape (2, 3): for soft \
labels, mix the losses of the classes that they mix
    """
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(
            f"labels must be class indices (N,) of integer type, got {labels.dtype} of shape {tuple(labels.shape)}: "
            f"for soft labels, mix the losses of the classes that they mix"
        )
    if logits.ndim != 2 or logits.shape[0] != labels.shape[0]:
        raise ValueError(
            f"logits must have the shape ({labels.shape[0]}, K) to fit the labels, got {tuple(logits.shape)}"
        )
    return widen(logits)


def weighted_mean(values: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Mean over samples in which each counts by the weight of its class: sum_i w_{y_i} v_i / sum_i w_{y_i}.

    The sum in the denominator is over the batch, as in ``torch.nn.functional.cross_entropy(weight=...)``, so that the
    weights change the classes' shares and not the learning rate.

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
    """Mean over the classes of a batch of the mean over each class's samples; classes that are absent do not count.

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
