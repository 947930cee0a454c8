"""Training batches from image files: decoded by worker processes, augmented on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nc_tools.data.batch_options import BatchOptions
from nc_tools.data.decode import available_cores
from nc_tools.data.image_set import ImageFiles, Images
from nc_tools.data.training_batches import TrainingBatches


class PixelStream:
    """Pixels of an image set, batch by batch, read ahead by worker processes that live as long as this object.

    Args:
        images: The set.
        device: Where the batches go.
        workers: Worker processes; 0 reads in this process. None: for files one for each core, at most 8; for pixels in
            memory 0.
    """

    def __init__(self, images: Images, device: torch.device, workers: int | None) -> None:
        if workers is None:
            workers = min(8, available_cores()) if isinstance(images, ImageFiles) else 0
        self._device = device
        self._sampler = _BatchList()
        self._loader = DataLoader(
            _Pixels(images),
            batch_sampler=self._sampler,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else every epoch would draw a number from the global generator
        )

    def read(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the pixels at each index tensor (B,) as uint8 (B, C, H, W) on the device, in order."""
        self._sampler.batches = [batch.tolist() for batch in batches]
        for pixels in self._loader:
            yield pixels.to(self._device, non_blocking=True)


class _Pixels(Dataset[Tensor]):
    """The pixels of an image set, fetched a batch at a time."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images.take(torch.tensor([index]))[0]

    def __getitems__(self, indices: list[int]) -> Tensor:
        return self._images.take(torch.tensor(indices))


class _BatchList(Sampler[list[int]]):
    """The batches of the current epoch, which change while the worker processes stay."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _unchanged(batch: Any) -> Any:
    """Return what ``__getitems__`` returned: it is a batch already."""
    return batch


class StreamLoader(TrainingBatches):
    """Training batches of a set that does not fit into memory; bit-equal to those of ``Loader`` on the same images.

    Args:
        images: The whole training set, usually ``ImageFiles``.
        indices: (M,) the samples to train on, int64.
        options: Size, pixels, order and device of the batches. With two views, an image is decoded once.

    Raises:
        TypeError: As for ``Loader``.
        ValueError: As for ``Loader``.
    """

    def __init__(self, images: Images, indices: Tensor, options: BatchOptions) -> None:
        super().__init__(images, indices, options, home=torch.device("cpu"))
        self._stream = PixelStream(images, self._device, options.workers)

    def _read(self, batches: list[Tensor]) -> Iterator[Tensor]:
        return self._stream.read([self._indices[batch] for batch in batches])
