"""Training batches from pixels that stay on the device, and batches for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TypeAlias

import torch
from torch import Tensor

from nc_tools.data.augment import Augment, Normalize
from nc_tools.data.image_set import Images, ImageSet
from nc_tools.data.sampling import Sampling
from nc_tools.data.stream_loader import PixelStream, StreamLoader, default_workers
from nc_tools.data.training_batches import TrainingBatches
from nc_tools.records import Batch

BatchLoader: TypeAlias = "Loader | StreamLoader"


class Loader(TrainingBatches):
    """Training batches of a set in memory: uint8 on the device, a few kernels per step, no worker process.

    Args:
        images: The whole training set.
        indices: (M,) the samples to train on, int64; on a GPU only they are copied there.
        batch_size: Samples in a batch.
        mean: (C,), in 0..1.
        std: (C,), in 0..1.
        augment: What is done to the images, or None for nothing.
        seed: The run's seed.
        device: Where the batches are made.
        channels_last: Memory layout of the inputs.
        views: How many augmented views of each image a batch holds: 1, or 2 with the other one in
        ``Batch.second_view``. The
            first is the same either way.
        tags: Which classes are in each image of the whole set (N, K), bool, where it may have several; each batch
            holds its own in ``Batch.tags``.
        sampling: How often each class is met; None: each sample once an epoch. The length of an epoch is the same.
        epochs: Length of the training; only a sampling that changes along it asks.

    Raises:
        ValueError: If there is not one batch, two views are asked for without augmentation, or tags do not fit.

    Example:
        >>> pixels, labels = torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.zeros(5).long()
        >>> images = ImageSet(pixels, labels, classes=("a",), name="zeros")
        >>> loader = Loader(images, torch.arange(5), 2, mean=[0.0], std=[1.0], augment=None, seed=0)
        >>> [len(batch.labels) for batch in loader.epoch(0)]
        [2, 3]
    """

    def __init__(
        self,
        images: ImageSet,
        indices: Tensor,
        batch_size: int,
        *,
        mean: Tensor | Sequence[float],
        std: Tensor | Sequence[float],
        augment: Augment | None,
        seed: int,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        views: int = 1,
        tags: Tensor | None = None,
        sampling: Sampling | None = None,
        epochs: int | None = None,
    ) -> None:
        where = torch.device(device)
        super().__init__(
            images, indices, batch_size, mean=mean, std=std, augment=augment, seed=seed, device=where, home=where,
            channels_last=channels_last, views=views, tags=tags, sampling=sampling, epochs=epochs,
        )  # fmt: skip
        if where.type == images.images.device.type:
            self._pixels, self._rows = images.images, self._indices
        else:
            self._pixels = images.take(indices).to(where)
            self._rows = torch.arange(len(indices), device=where)

    def _read(self, places: list[Tensor]) -> Iterator[Tensor]:
        return map(self._pixels.index_select, repeat(0), [self._rows[chosen] for chosen in places])


def make_loader(
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
) -> BatchLoader:
    """Return a ``Loader`` where the pixels fit on the device, else a ``StreamLoader`` with the same batches.

    Pixels in memory go to a GPU if they take at most half of what is free there. Arguments as for
    ``StreamLoader``.
    """
    if isinstance(images, ImageSet) and _fits(images, len(indices), torch.device(device)):
        return Loader(
            images, indices, batch_size, mean=mean, std=std, augment=augment, seed=seed, device=device,
            channels_last=channels_last, views=views, tags=tags, sampling=sampling, epochs=epochs,
        )  # fmt: skip
    return StreamLoader(
        images, indices, batch_size, mean=mean, std=std, augment=augment, seed=seed, device=device,
        channels_last=channels_last, workers=workers, views=views, tags=tags, sampling=sampling, epochs=epochs,
    )  # fmt: skip


def _fits(images: ImageSet, count: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    channels, height, width = images.shape
    free, _ = torch.cuda.mem_get_info(device)
    return count * channels * height * width <= free // 2


def evaluation_batches(
    images: Images,
    indices: Tensor | None,
    batch_size: int,
    *,
    mean: Tensor | Sequence[float],
    std: Tensor | Sequence[float],
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    workers: int | None = None,
) -> Iterator[Batch]:
    """Yield the samples at ``indices`` (None: all) in their order, without augmentation.

    Args:
        images: Any set, in memory or not.
        indices: (M,), int64, or None.
        batch_size: Samples in a batch.
        mean: (C,), in 0..1.
        std: (C,), in 0..1.
        device: Where the batches go.
        channels_last: Memory layout of the inputs.
        workers: Worker processes for files. None: one a core, at most 8.

    Example:
        >>> pixels, labels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3).long()
        >>> images = ImageSet(pixels, labels, classes=("a",), name="zeros")
        >>> [b.index.tolist() for b in evaluation_batches(images, None, 2, mean=[0.0], std=[1.0])]
        [[0, 1], [2]]
    """
    where = torch.device(device)
    chosen = torch.arange(len(images)) if indices is None else indices
    batches = list(torch.split(chosen, batch_size)) if len(chosen) else []
    normalize = Normalize(mean, std, device=where, channels_last=channels_last)
    pixels = PixelStream(images, where, default_workers(images) if workers is None else workers)
    for index, raw in zip(batches, pixels.read(batches), strict=True):
        yield Batch(normalize(raw), images.labels[index].to(where), index.to(where))
