"""Batches of sets that are not held on the device: decoded by worker processes, augmented on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nc_tools.data.augmentation import Augment, Normalise, augment
from nc_tools.data.decode import available_cores
from nc_tools.data.images import ImageFiles, Images
from nc_tools.data.plan import batch_bounds, check_start, plan_epoch
from nc_tools.records import Batch


def default_workers(images: Images) -> int:
    """Return how many worker processes decode: one a core, at most 8, for files; none for pixels."""
    return min(8, available_cores()) if isinstance(images, ImageFiles) else 0


class PixelStream:
    """Raw batches of an image set, read ahead by worker processes that live as long as this object.

    Args:
        images: The set.
        device: Where the batches go.
        workers: Worker processes; 0 reads in this one.
    """

    def __init__(self, images: Images, device: torch.device, workers: int) -> None:
        self._device = device
        self._batches = _Batches()
        self._loader = DataLoader(
            _Pixels(images),
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else every epoch would draw a number from the global generator
        )

    def read(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the pixels at each index tensor (B,) as uint8 (B, C, H, W) on the device, in order."""
        self._batches.indices = [batch.tolist() for batch in batches]
        for pixels in self._loader:
            yield pixels.to(self._device, non_blocking=True)


class _Pixels(Dataset[Tensor]):
    """An image set that is asked for a whole batch at a time."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images.take(torch.tensor([index]))[0]

    def __getitems__(self, indices: list[int]) -> Tensor:
        return self._images.take(torch.tensor(indices))


class _Batches(Sampler[list[int]]):
    """The batches of the epoch at hand; they change while the workers stay."""

    def __init__(self) -> None:
        self.indices: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def _as_it_is(batch: Any) -> Any:
    """Pass on what ``__getitems__`` returned: it is a batch already."""
    return batch


class StreamLoader:
    """Training batches of a set beyond memory; bit-equal to those of ``Loader`` on the same images.

    Args:
        images: The whole training set, usually ``ImageFiles``.
        indices: (M,) the samples to train on, int64.
        batch_size: Samples in a batch.
        mean: (C,), in 0..1.
        std: (C,), in 0..1.
        augment: Crop and flip, or None for neither.
        seed: The run's seed.
        device: Where the batches go.
        channels_last: Memory layout of the inputs.
        workers: Worker processes that decode. None: one a core, at most 8.

    Raises:
        ValueError: If there is not one batch.
    """

    def __init__(
        self,
        images: Images,
        indices: Tensor,
        batch_size: int,
        *,
        mean: Tensor | Sequence[float],
        std: Tensor | Sequence[float],
        augment: Augment | None,
        seed: int,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        workers: int | None = None,
    ) -> None:
        self._device = torch.device(device)
        self._indices = indices
        self._labels = images.labels
        self._augment = augment
        self._seed = seed
        self._bounds = batch_bounds(len(indices), batch_size)
        self._normalise = Normalise(mean, std, device=self._device, channels_last=channels_last)
        self._stream = PixelStream(images, self._device, default_workers(images) if workers is None else workers)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._bounds)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on; files of the steps before it are not read.

        Raises:
            ValueError: If the epoch has no such step.
        """
        check_start(start, len(self))
        return self._steps(epoch, start)

    def _steps(self, epoch: int, start: int) -> Iterator[Batch]:
        order, views = plan_epoch(len(self._indices), self._augment, self._seed, epoch)
        index = self._indices[order]
        bounds = self._bounds[start:]
        batches = [index[first:stop] for first, stop in bounds]
        for (first, stop), chosen, raw in zip(bounds, batches, self._stream.read(batches), strict=True):
            pixels = raw
            if views is not None and self._augment is not None:
                pixels = augment(raw, views[first:stop].to(self._device), self._augment)
            labels = self._labels[chosen].to(self._device)
            yield Batch(self._normalise(pixels), labels, chosen.to(self._device))
