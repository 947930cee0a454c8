"""Images of no class beside each training batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nc_tools.data.loader import BatchLoader
from nc_tools.records import Batch


class WithOutliers:
    """Training batches, each with a batch of images of no class in ``Batch.outliers``.

    For losses that hold outliers away from the classes. The outliers go round at a pace of their own: step s of
    training gets batch s of a sequence that begins anew, in another order, after its last one. So they depend on seed,
    epoch and step alone, and a run can be resumed anywhere. Their labels are not looked at.

    Args:
        batches: Of the classes.
        outliers: Of the others: images of the same size and channels, normalised as the classes' are.

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
