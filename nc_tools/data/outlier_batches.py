"""Training batches with outliers: images of none of the classes, for losses that train against them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from nc_tools.data.loader import BatchLoader
from nc_tools.records import Batch


class WithOutliers:
    """Training batches, each with a batch of outliers in ``Batch.outliers``.

    The outliers have epochs of their own. Step s, counted over all epochs of training, gets batch s of the outliers;
    after their last batch they start again in another order. So they depend on seed, epoch and step alone, and a run
    can be resumed anywhere. Their labels are not used.

    Args:
        batches: Training batches.
        outliers: Batches of outliers of the same size and channels, normalized in the same way.

    Example:
        >>> import torch
        >>> from nc_tools.data import BatchOptions, ImageSet, Loader
        >>> pixels = torch.zeros(6, 1, 2, 2, dtype=torch.uint8)
        >>> images = ImageSet(pixels, torch.zeros(6).long(), classes=("a",), name="zeros")
        >>> options = BatchOptions(batch_size=2, mean=[0.0], std=[1.0])
        >>> few, many = (Loader(images, torch.arange(n), options) for n in (4, 6))
        >>> [batch.outliers.shape[0] for batch in WithOutliers(many, few).epoch(1)]
        [2, 2, 2]
    """

    def __init__(self, batches: BatchLoader, outliers: BatchLoader) -> None:
        self._batches = batches
        self._outliers = outliers

    def __len__(self) -> int:
        """Return the number of steps in an epoch of the training images."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on."""
        pairs = zip(self._batches.epoch(epoch, start), self._outliers_from(epoch * len(self) + start), strict=False)
        return (replace(batch, outliers=outliers.inputs) for batch, outliers in pairs)

    def _outliers_from(self, step: int) -> Iterator[Batch]:
        epoch, start = divmod(step, len(self._outliers))
        while True:
            yield from self._outliers.epoch(epoch, start)
            epoch, start = epoch + 1, 0


class BlendedOutliers:
    """Training batches, each with averages of two of its images of different classes as outliers.

    For data without a set of outliers: (x_i + x_j) / 2 for each sample i of the batch, after augmentation and
    normalization. Such an image is close to the training images and shows neither class clearly. An arm that trains on
    it uses no images that other arms lack. Source: the arithmetic means of Hendrycks et al. 2019 (outlier exposure,
    appendix), who use them to choose settings. The pairs depend on the batch alone, so that a run can be resumed
    anywhere; they change with the order of each epoch. In a batch of one class, all images are averaged with the same
    one.

    Args:
        batches: Training batches.

    Example:
        >>> import torch
        >>> from nc_tools.data import BatchOptions, ImageSet, Loader
        >>> pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> images = ImageSet(pixels, torch.tensor([0, 1]), classes=("a", "b"), name="two")
        >>> loader = Loader(images, torch.arange(2), BatchOptions(batch_size=2, mean=[0.0], std=[1.0]))
        >>> [batch.outliers.flatten().tolist() for batch in BlendedOutliers(loader).epoch(0)]
        [[0.5, 0.5]]
    """

    def __init__(self, batches: BatchLoader) -> None:
        self._batches = batches

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on."""
        for batch in self._batches.epoch(epoch, start):
            partners = batch.inputs.index_select(0, other_class(batch.labels))
            yield replace(batch, outliers=(batch.inputs + partners) / 2)


def other_class(labels: Tensor) -> Tensor:
    """Return for each sample of a batch the position of a sample of another class.

    The partners of a class are spread evenly over the samples of other classes. Nothing is drawn, because batches are
    shuffled, and nothing waits for the device. In a batch of one class all samples get the same partner.

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
    class_size = end - begin
    rank = torch.arange(len(labels), device=labels.device) - begin
    partner = (end + rank * (len(labels) - class_size) // class_size) % len(labels)
    return torch.empty_like(order).scatter_(0, order, order[partner])
