"""The options of a batch loader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nc_tools.data.augment import Augment, Normalize
from nc_tools.data.sampling import Sampling


class Readers(Protocol):
    """Processes that take the same batches, such as :class:`nc_tools.training.Processes`."""

    def part(self, count: int) -> slice:
        """Return which of ``count`` samples of a batch this process reads."""

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes, in place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchOptions:
    """How batches are made from a set of images: size, pixels, order and device.

    Training batches use all of them. Evaluation batches use the size, the pixels and the device.

    Attributes:
        batch_size: Samples in a batch.
        mean: Mean of each channel (C,), in 0..1.
        std: Standard deviation of each channel (C,), in 0..1.
        augment: Augmentation of the images, or None for none.
        seed: The run's seed, from which order and augmentation are drawn.
        views: Augmented views of each image in a batch: 1, or 2 with the second in ``Batch.second_view``. The first is
            the same either way.
        tags: Which classes are in each image of the whole set (N, K), bool, for images with several classes; or None.
        sampling: How often each class is drawn, or None for each sample once an epoch. The epoch keeps its length.
        epochs: Length of the training, which ``ProgressiveSampling`` needs.
        device: Where the batches go.
        channels_last: Use the channels-last memory layout for the inputs.
        workers: Number of batches of files that are decoded at the same time, for large sets each by a process of its
            own; 0 decodes a batch when it is asked for. None: as many as the steps need.
        geometry: Resizes and crops the augmented uint8 images (N, C, H, W) for the network, as
            :meth:`nc_tools.models.ImagePreprocessing.geometry` does, so that the set can be kept at its own size. None:
            the network gets the images as they are.
        readers: The processes that take the same batches: each reads a part of every batch from the files, and gets
            the other pixels from the others. For a :class:`~nc_tools.data.StreamLoader`. None: this process alone.

    Example:
        >>> BatchOptions(batch_size=64, mean=[0.5], std=[0.25]).device
        'cpu'
    """

    batch_size: int
    mean: Tensor | Sequence[float]
    std: Tensor | Sequence[float]
    augment: Augment | None = None
    seed: int = 0
    views: int = 1
    tags: Tensor | None = None
    sampling: Sampling | None = None
    epochs: int | None = None
    device: torch.device | str = "cpu"
    channels_last: bool = False
    workers: int | None = None
    geometry: Callable[[Tensor], Tensor] | None = None
    readers: Readers | None = None

    def to_inputs(self) -> Callable[[Tensor], Tensor]:
        """Return the function that turns a batch of uint8 images into inputs of the network."""
        normalize = Normalize(self.mean, self.std, device=self.device, channels_last=self.channels_last)
        if (geometry := self.geometry) is None:
            return normalize
        return lambda images: normalize(geometry(images))
