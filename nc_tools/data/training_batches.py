"""Training batches of an epoch, which are the same whether the pixels are in memory or in files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from nc_tools.data.batch_options import BatchOptions
from nc_tools.data.epoch_plan import batch_bounds, check_start, check_views, plan_epoch
from nc_tools.data.image_set import Images
from nc_tools.data.sampling import EpochSampler
from nc_tools.records import Batch

# The view number (crop and flip) of each sample (M,), and the draws of further operations (M, ...) by name.
_Draws: TypeAlias = tuple[Tensor, Mapping[str, Tensor]]


class TrainingBatches(ABC):
    """Batches of an epoch that depend on the seed and the epoch alone; the base class of loaders.

    A subclass reads the pixels. Raises as for :class:`~nc_tools.data.Loader`.

    Args:
        images: The whole training set.
        indices: (M,) the samples to train on, int64.
        options: Size, pixels, order and device of the batches.
        home: The device on which labels and indices are kept.
    """

    def __init__(self, images: Images, indices: Tensor, options: BatchOptions, *, home: torch.device) -> None:
        check_views(options.views, options.augment)
        tags = options.tags
        if tags is not None and (tags.dtype != torch.bool or tags.ndim != 2 or len(tags) != len(images)):
            raise ValueError(
                f"tags must be bool with a row for each of the {len(images)} images, got {tags.dtype} of shape "
                f"{tuple(tags.shape)}"
            )
        _check_indices(indices, len(images))
        channels = images.shape[0]
        sizes = len(torch.as_tensor(options.mean)), len(torch.as_tensor(options.std))
        if options.geometry is None and sizes != (channels, channels):
            raise ValueError(
                f"mean and std must have one number for each of the {channels} channels, got {sizes[0]} and {sizes[1]}"
            )
        self._options = options
        self._device = torch.device(options.device)
        self._bounds = batch_bounds(len(indices), options.batch_size)
        self._to_inputs = options.to_inputs()
        self._indices = indices.to(home)
        labels = images.labels[indices]
        sampling = options.sampling
        self._sampler = None if sampling is None else EpochSampler(labels, sampling, options.seed, options.epochs)
        self._labels = labels.to(home)
        self._tags = None if tags is None else tags[indices].to(home)

    @abstractmethod
    def _read(self, batches: list[Tensor]) -> Iterator[Tensor]:
        """Yield the pixels (B, C, H, W), uint8, of each batch on the device.

        A batch is given as positions (B,) in the indices.
        """

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return len(self._bounds)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on.

        They are bit-equal whichever epochs and steps were requested before. Images of earlier steps are not read.

        Raises:
            ValueError: If ``start`` is negative or greater than the number of steps.
        """
        check_start(start, len(self))
        return self._steps(epoch, start)

    def _steps(self, epoch: int, start: int) -> Iterator[Batch]:
        options = self._options
        plan = plan_epoch(len(self._indices), options.augment, options.seed, epoch, options.views, self._sampler)
        order = plan.order.to(self._indices.device)
        first, second = (
            None if views is None else (views.to(self._device), _moved(further, self._device))
            for views, further in ((plan.views, plan.further), (plan.second, plan.second_further))
        )
        bounds = self._bounds[start:]
        batches = [order[begin:end] for begin, end in bounds]
        for (begin, end), batch, pixels in zip(bounds, batches, self._read(batches), strict=True):
            yield Batch(
                self._inputs(pixels, first, begin, end),
                self._labels[batch].to(self._device),
                self._indices[batch].to(self._device),
                second_view=None if second is None else self._inputs(pixels, second, begin, end),
                tags=None if self._tags is None else self._tags[batch].to(self._device),
            )

    def _inputs(self, pixels: Tensor, draws: _Draws | None, begin: int, end: int) -> Tensor:
        augment = self._options.augment
        if draws is None or augment is None:
            return self._to_inputs(pixels)
        views, further = draws
        if further:
            further = {name: values[begin:end] for name, values in further.items()}
        inputs = self._to_inputs(augment.pixels(pixels, views[begin:end], further))
        return inputs if augment.cutout is None else augment.cutout.apply(inputs, further["cutout"])


def _moved(draws: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: values.to(device) for name, values in draws.items()}


def _check_indices(indices: Tensor, number: int) -> None:
    """Check indices before the first batch: int64 (M,), each a position in the set of ``number`` images."""
    if indices.ndim != 1 or indices.dtype != torch.int64:
        raise TypeError(
            f"indices must be positions (M,), int64, got {indices.dtype} of shape {tuple(indices.shape)}: for a mask "
            f"pass mask.nonzero().flatten()"
        )
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < number):
        raise ValueError(
            f"indices must lie in [0, {number}), the images of the set, got {int(indices.min())} to "
            f"{int(indices.max())}"
        )
