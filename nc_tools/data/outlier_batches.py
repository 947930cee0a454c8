"""Images of no class beside each training batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from nc_tools.data.loader import BatchLoader
from nc_tools.records import Batch


class WithOutliers:
    """Training batches, each with a batch of images of no class in ``Batch.outliers``.

    For losses that hold outliers away from the classes. The outliers go round at a pace of their own: step s of
    training gets batch s of a sequence that begins anew, in another order, after its last one. So they depend on seed,
    epoch and step alone, and a run can be resumed anywhere. Their labels are not looked at.

    Args:
        batches: Of the classes.
        outliers: Of the others: images of the same size and channels, normalized as the classes' are.

    Example:
        >>> import torch
        >>> from nc_tools.data import ImageSet, Loader
        >>> pixels = torch.zeros(6, 1, 2, 2, dtype=torch.uint8)
        >>> images = ImageSet(pixels, torch.zeros(6).long(), classes=("a",), name="zeros")
        >>> few, many = (
        ...     Loader(images, torch.arange(n), 2, mean=[0.0], std=[1.0], augment=None, seed=0) for n in (4, 6)
        ... )
        >>> [batch.outliers.shape[0] for batch in WithOutliers(many, few).epoch(1)]
        [2, 2, 2]
    """

    def __init__(self, batches: BatchLoader, outliers: BatchLoader) -> None:
        self._batches = batches
        self._outliers = outliers

    def __len__(self) -> int:
        """Steps in an epoch of the classes."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on."""
        pairs = zip(self._batches.epoch(epoch, start), self._from(epoch * len(self) + start), strict=False)
        return (replace(batch, outliers=other.inputs) for batch, other in pairs)

    def _from(self, step: int) -> Iterator[Batch]:
        round_, place = divmod(step, len(self._outliers))
        while True:
            yield from self._outliers.epoch(round_, place)
            round_, place = round_ + 1, 0


class BlendedOutliers:
    """Training batches, each with averages of two of its images, of different classes, as images of no class.

    Outliers for data without a set of them, and without an image that other arms lack: (x_i + x_j) / 2 for each sample
    i of the batch, after augmentation and normalization. Two faint pictures on top of each other are close to what is
    trained on, and of no class. Source: the arithmetic means of Hendrycks et al. 2019 (outlier exposure, appendix), who
    chose settings on them. A pair depends on the batch alone, so a run can be resumed anywhere; which samples meet
    changes with each epoch's order. A batch of one class has no other and is blended within itself.

    Args:
        batches: Of the classes.

    Example:
        >>> import torch
        >>> from nc_tools.data import ImageSet, Loader
        >>> pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> images = ImageSet(pixels, torch.tensor([0, 1]), classes=("a", "b"), name="two")
        >>> loader = Loader(images, torch.arange(2), 2, mean=[0.0], std=[1.0], augment=None, seed=0)
        >>> [batch.outliers.flatten().tolist() for batch in BlendedOutliers(loader).epoch(0)]
        [[0.5, 0.5]]
    """

    def __init__(self, batches: BatchLoader) -> None:
        self._batches = batches

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on."""
        for batch in self._batches.epoch(epoch, start):
            partners = batch.inputs.index_select(0, other_class(batch.labels))
            yield replace(batch, outliers=(batch.inputs + partners) / 2)


def other_class(labels: Tensor) -> Tensor:
    """Choose for each sample of a batch one of another class, those of a class spread evenly over the others.

    Nothing is drawn and nothing waits for the device: batches come shuffled. A batch of one class has no others, and
    gives all samples the same partner.

    Args:
        labels: (N,), int64.

    Returns:
        Positions in the batch (N,), int64.

    Example:
        >>> import torch
        >>> other_class(torch.tensor([0, 1, 0, 2])).tolist()
        [1, 3, 3, 0]
    """
    ordered, order = labels.sort(stable=True)
    begin, end = (torch.searchsorted(ordered, ordered, right=right) for right in (False, True))
    own = end - begin
    nth = torch.arange(len(labels), device=labels.device) - begin
    chosen = (end + nth * (len(labels) - own) // own) % len(labels)
    return torch.empty_like(order).scatter_(0, order, order[chosen])
