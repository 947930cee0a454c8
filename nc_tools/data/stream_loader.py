"""Batches of sets that are not held on the device: decoded by worker processes, augmented on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nc_tools.data.augment import Augment
from nc_tools.data.decode import available_cores
from nc_tools.data.image_set import ImageFiles, Images
from nc_tools.data.sampling import Sampling
from nc_tools.data.training_batches import TrainingBatches


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


class StreamLoader(TrainingBatches):
    """Training batches of a set beyond memory; bit-equal to those of ``Loader`` on the same images.

    Args:
        images: The whole training set, usually ``ImageFiles``.
        indices: (M,) the samples to train on, int64.
        batch_size: Samples in a batch.
        mean: (C,), in 0..1.
        std: (C,), in 0..1.
        augment: What is done to the images, or None for nothing.
        seed: The run's seed.
        device: Where the batches go.
        channels_last: Memory layout of the inputs.
        workers: Worker processes that decode. None: one a core, at most 8.
        views: How many views of each image a batch holds, 1 or 2; decoded once.
        tags: Which classes are in each image of the whole set (N, K), bool, or None.
        sampling: How often each class is met; None: each sample once an epoch.
        epochs: Length of the training; only a sampling that changes along it asks.

    Raises:
        ValueError: As for ``Loader``.
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
        views: int = 1,
        tags: Tensor | None = None,
        sampling: Sampling | None = None,
        epochs: int | None = None,
    ) -> None:
        super().__init__(
            images, indices, batch_size, mean=mean, std=std, augment=augment, seed=seed, device=torch.device(device),
            home=torch.device("cpu"), channels_last=channels_last, views=views, tags=tags, sampling=sampling,
            epochs=epochs,
        )  # fmt: skip
        self._stream = PixelStream(images, self._device, default_workers(images) if workers is None else workers)

    def _read(self, places: list[Tensor]) -> Iterator[Tensor]:
        return self._stream.read([self._indices[chosen] for chosen in places])
