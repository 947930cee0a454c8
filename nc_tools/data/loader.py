"""Training batches from pixels in memory, and batches for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import TypeAlias

import torch
from torch import Tensor

from nc_tools.data.batch_options import BatchOptions
from nc_tools.data.image_set import Images, ImageSet
from nc_tools.data.stream_loader import PixelStream, StreamLoader
from nc_tools.data.training_batches import TrainingBatches
from nc_tools.records import Batch

BatchLoader: TypeAlias = "Loader | StreamLoader"
"""A loader of training batches: of images in memory, or of files that are decoded during training."""


class Loader(TrainingBatches):
    """Training batches of a set in memory. The uint8 pixels are on the device, and there are no worker processes.

    Args:
        images: The whole training set.
        indices: (M,) the samples to train on, int64. On a GPU only these are copied there.
        options: Size, pixels, order and device of the batches.

    Raises:
        TypeError: If the indices are not int64.
        ValueError: If there is no sample, two views are requested without random augmentation, or ``tags``, ``mean`` or
            the indices do not fit the images.

    Example:
        >>> pixels, labels = torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.zeros(5).long()
        >>> images = ImageSet(pixels, labels, classes=("a",), name="zeros")
        >>> loader = Loader(images, torch.arange(5), BatchOptions(batch_size=2, mean=[0.0], std=[1.0]))
        >>> [len(batch.labels) for batch in loader.epoch(0)]
        [2, 3]
    """

    def __init__(self, images: ImageSet, indices: Tensor, options: BatchOptions) -> None:
        device = torch.device(options.device)
        super().__init__(images, indices, options, home=device)
        if device.type == images.images.device.type:
            self._pixels, self._rows = images.images, self._indices
        else:
            self._pixels = images.take(indices).to(device)
            self._rows = torch.arange(len(indices), device=device)

    def _read(self, batches: list[Tensor]) -> Iterator[Tensor]:
        return map(self._pixels.index_select, repeat(0), [self._rows[batch] for batch in batches])


def make_loader(images: Images, indices: Tensor, options: BatchOptions) -> BatchLoader:
    """Return a ``Loader`` if the pixels are in memory and fit on the device, else a ``StreamLoader`` (same batches).

    Pixels fit on a GPU if they take at most half of its free memory.

    Args:
        images: The whole training set.
        indices: (M,) the samples to train on, int64.
        options: Size, pixels, order and device of the batches.

    Raises:
        TypeError: As for ``Loader``.
        ValueError: As for ``Loader``.
    """
    if isinstance(images, ImageSet) and _fits(images, len(indices), torch.device(options.device)):
        return Loader(images, indices, options)
    return StreamLoader(images, indices, options)


def _fits(images: ImageSet, count: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    channels, height, width = images.shape
    free, _ = torch.cuda.mem_get_info(device)
    return count * channels * height * width <= free // 2


def evaluation_batches(images: Images, indices: Tensor | None, options: BatchOptions) -> Iterator[Batch]:
    """Yield batches for evaluation: the samples in their order, without augmentation.

    Args:
        images: Any set, in memory or not.
        indices: (M,), int64, or None for all samples.
        options: Size, pixels and device of the batches. Augmentation, views, tags and sampling are not used.

    Example:
        >>> pixels, labels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3).long()
        >>> images = ImageSet(pixels, labels, classes=("a",), name="zeros")
        >>> options = BatchOptions(batch_size=2, mean=[0.0], std=[1.0])
        >>> [batch.index.tolist() for batch in evaluation_batches(images, None, options)]
        [[0, 1], [2]]
    """
    device = torch.device(options.device)
    indices = torch.arange(len(images)) if indices is None else indices
    batches = list(torch.split(indices, options.batch_size)) if len(indices) else []
    to_inputs = options.to_inputs()
    pixels = PixelStream(images, device, options.workers)
    for index, raw in zip(batches, pixels.read(batches), strict=True):
        yield Batch(to_inputs(raw), images.labels[index].to(device), index.to(device))
