"""Class-balanced batches out of any loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from nc_tools.data.mixing import Batches
from nc_tools.records import Batch
from nc_tools.seeds import stream


def draw_balanced(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw samples with replacement: first a class, each with the same probability, then one of its samples.

    Args:
        labels: (M,), int64, on the CPU.
        count: How many to draw.
        generator: On the CPU.

    Returns:
        Places among the labels (count,), int64. A class without a sample is never drawn.

    Example:
        >>> labels = torch.tensor([0] * 98 + [1] * 2)
        >>> drawn = draw_balanced(labels, 10_000, torch.Generator().manual_seed(0))
        >>> round(labels[drawn].double().mean().item(), 1)
        0.5
    """
    counts = torch.bincount(labels)
    return torch.multinomial(1 / counts[labels].double(), count, replacement=True, generator=generator)


class ClassBalancedBatches:
    """Epochs of as many samples as there are, drawn class by class: a function of (seed, epoch), like every order.

    Each epoch is a loader of its own over the samples that were drawn for it, repeated ones included, so that
    augmentation, devices and files are the loader's business.

    Args:
        indices: (M,), the training samples, int64.
        labels: (M,), theirs, int64, on the CPU.
        make: Makes a loader over such indices.
        seed: The run's seed.
        first: Epochs that were trained before: orders and crops go on from there instead of beginning anew.
    """

    def __init__(
        self, indices: Tensor, labels: Tensor, make: Callable[[Tensor], Batches], *, seed: int, first: int = 0
    ) -> None:
        self._indices = indices
        self._labels = labels
        self._make = make
        self._seed = seed
        self._first = first
        self._steps = len(make(indices))

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on."""
        number = self._first + epoch
        # Key 1 sets these draws apart from the loader's own order of the same epoch.
        drawn = draw_balanced(self._labels, len(self._labels), stream(self._seed, "order", number, 1))
        return self._make(self._indices[drawn]).epoch(number, start)
