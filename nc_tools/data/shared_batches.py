"""Training batches that several trainings in one process take at the same step: each is made once."""

from __future__ import annotations

from collections.abc import Iterator

from nc_tools.data.mixing import Batches
from nc_tools.records import Batch


class SharedBatches:
    """Training batches, each made once for all trainings that take it at the same step.

    For trainings that run at the same time on the same samples in the same order, such as the arms of a seed. A
    training that is at another step than the others gets batches of its own until the end of the epoch. The inputs are
    shared too: a training must not change them in place.

    Args:
        batches: A loader whose batches depend on epoch and step alone.

    Example:
        >>> import torch
        >>> from nc_tools.data import BatchOptions, ImageSet, Loader
        >>> pixels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
        >>> images = ImageSet(pixels, torch.zeros(4).long(), classes=("a",), name="zeros")
        >>> loader = Loader(images, torch.arange(4), BatchOptions(batch_size=2, mean=[0.0], std=[1.0]))
        >>> shared = SharedBatches(loader)
        >>> all(one is other for one, other in zip(shared.epoch(0), shared.epoch(0)))
        True
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._iterator: Iterator[Batch] = iter(())
        self._latest: tuple[tuple[int, int], Batch] | None = None

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step ``start`` on."""
        own: Iterator[Batch] | None = None
        for step in range(start, len(self)):
            batch = None if own is not None else self._shared(epoch, step, first=step == start)
            if batch is None:
                own = own or self._batches.epoch(epoch, step)
                batch = next(own)
            yield batch

    def _shared(self, epoch: int, step: int, *, first: bool) -> Batch | None:
        """Return the shared batch of a step, if it is the latest one or the one after it; else None.

        ``first`` says that the caller's epoch begins with this step: only such a caller may start a new iterator.
        """
        if self._latest is not None and self._latest[0] == (epoch, step):
            return self._latest[1]
        if self._latest is None or self._latest[0][1] == len(self) - 1:  # no training is within an epoch
            if not first:
                return None
            self._iterator = self._batches.epoch(epoch, step)
        elif self._latest[0] != (epoch, step - 1):
            return None
        batch = next(self._iterator)
        self._latest = ((epoch, step), batch)
        return batch
