"""What the training batches of all loaders have in common: only where pixels come from differs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from nc_tools.data.augment import Augment, Normalize
from nc_tools.data.epoch_plan import batch_bounds, check_start, check_views, plan_epoch
from nc_tools.data.image_set import Images
from nc_tools.data.sampling import EpochSampler, Sampling
from nc_tools.records import Batch


class TrainingBatches(ABC):
    """Batches of an epoch, which depend on the seed and the epoch alone.

    A subclass says where it reads pixels from. Arguments as for :class:`~nc_tools.data.Loader`.

    Args:
        images: The whole training set.
        indices: (M,) the samples to train on, int64.
        batch_size: Samples in a batch.
        mean: (C,), in 0..1.
        std: (C,), in 0..1.
        augment: What is done to the images, or None for nothing.
        seed: The run's seed.
        device: Where the batches go.
        home: Where labels and positions are kept.
        channels_last: Memory layout of the inputs.
        views: How many views of each image a batch holds, 1 or 2.
        tags: Which classes are in each image of the whole set (N, K), bool, or None.
        sampling: How often each class is met, or None for each sample once an epoch.
        epochs: Length of the training, for a sampling that changes along it.
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
        device: torch.device,
        home: torch.device,
        channels_last: bool,
        views: int,
        tags: Tensor | None,
        sampling: Sampling | None,
        epochs: int | None,
    ) -> None:
        check_views(views, augment)
        if tags is not None and (tags.dtype != torch.bool or tags.ndim != 2 or len(tags) != len(images)):
            raise ValueError(
                f"tags must be bool with a row for each of the {len(images)} images, got {tags.dtype} "
                f"{tuple(tags.shape)}"
            )
        _check_indices(indices, len(images))
        channels = images.shape[0]
        if len(torch.as_tensor(mean)) != channels:
            raise ValueError(f"mean and std must have a number for each of {channels} channels, got {len(mean)}")
        self._device = device
        self._augment = augment
        self._seed = seed
        self._views = views
        self._bounds = batch_bounds(len(indices), batch_size)
        self._normalize = Normalize(mean, std, device=device, channels_last=channels_last)
        self._indices = indices.to(home)
        labels = images.labels[indices]
        self._sampler = None if sampling is None else EpochSampler(labels, sampling, seed, epochs)
        self._labels = labels.to(home)
        self._tags = None if tags is None else tags[indices].to(home)

    @abstractmethod
    def _read(self, places: list[Tensor]) -> Iterator[Tensor]:
        """Yield the pixels on the device of each batch, given by its places among the indices (B,)."""

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._bounds)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on, bit-equal whatever was asked for before.

        What the steps before it would need is not read.

        Raises:
            ValueError: If the epoch has no such step.
        """
        check_start(start, len(self))
        return self._steps(epoch, start)

    def _steps(self, epoch: int, start: int) -> Iterator[Batch]:
        plan = plan_epoch(len(self._indices), self._augment, self._seed, epoch, self._views, self._sampler)
        order = plan.order.to(self._indices.device)
        first, second = (
            None if views is None else {"views": views.to(self._device)} | _moved(further, self._device)
            for views, further in ((plan.views, plan.further), (plan.second, plan.second_further))
        )
        bounds = self._bounds[start:]
        places = [order[begin:end] for begin, end in bounds]
        for (begin, end), chosen, pixels in zip(bounds, places, self._read(places), strict=True):
            yield Batch(
                self._view(pixels, first, begin, end),
                self._labels[chosen].to(self._device),
                self._indices[chosen].to(self._device),
                second_view=None if second is None else self._view(pixels, second, begin, end),
                tags=None if self._tags is None else self._tags[chosen].to(self._device),
            )

    def _view(self, pixels: Tensor, drawn: Mapping[str, Tensor] | None, begin: int, end: int) -> Tensor:
        if drawn is None or self._augment is None:
            return self._normalize(pixels)
        rows = {name: values[begin:end] for name, values in drawn.items()}
        inputs = self._normalize(self._augment.pixels(pixels, rows["views"], rows))
        cutout = self._augment.cutout
        return inputs if cutout is None else cutout.apply(inputs, rows["cutout"])


def _moved(drawn: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: values.to(device) for name, values in drawn.items()}


def _check_indices(indices: Tensor, number: int) -> None:
    """Refuse positions that the set does not have; once, before the first batch."""
    if indices.ndim != 1 or indices.dtype != torch.int64:
        raise TypeError(
            f"indices must be positions (M,), int64, got {indices.dtype} of shape {tuple(indices.shape)}: for a mask "
            f"give mask.nonzero().flatten()"
        )
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < number):
        raise ValueError(
            f"indices must lie in [0, {number}), the images of the set, got {int(indices.min())} to "
            f"{int(indices.max())}"
        )
