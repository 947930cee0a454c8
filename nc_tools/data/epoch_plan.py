"""What happens in an epoch: a function of (seed, epoch) alone, drawn on the CPU before the epoch begins.

A run can therefore stop after any step and go on bit-equal without a saved generator state. And since neither
device nor batch size nor loader enters, a run sees the same order and the same crops on every device, from
memory or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from nc_tools.data.augment import Augment
from nc_tools.data.sampling import EpochSampler
from nc_tools.seeds import stream


class EpochPlan(NamedTuple):
    """Order of the samples (N,), and the view of each in that order (N,) or None if there is none; int64.

    ``second`` is a further view of each, where two were asked for. ``further`` holds what each operation after crop
    and flip has drawn, by its name, a row for each sample in order; ``second_further`` the same for the second view.
    """

    order: Tensor
    views: Tensor | None
    second: Tensor | None = None
    further: Mapping[str, Tensor] = {}
    second_further: Mapping[str, Tensor] = {}


def plan_epoch(
    count: int,
    how: Augment | None,
    seed: int,
    epoch: int,
    views: int = 1,
    sampler: EpochSampler | None = None,
) -> EpochPlan:
    """Draw an epoch of ``count`` samples from its two streams, "order" and "augment".

    A second view comes from a part of "augment" of its own, so that order and first views are the same whether or not a
    loss asks for it. With a sampler the epoch holds the samples that it draws, some of them more than once, in the same
    number; without one, each sample once.

    Example:
        >>> plan_epoch(5, None, seed=0, epoch=2).order.sort().values.tolist()
        [0, 1, 2, 3, 4]
    """
    order = torch.randperm(count, generator=stream(seed, "order", epoch))
    if sampler is not None:
        order = sampler.draw(epoch)[order]
    if how is None:
        return EpochPlan(order, None)
    plan = EpochPlan(
        order, how.draw(count, stream(seed, "augment", epoch)), further=how.draw_further(count, seed, epoch, 0)
    )
    if views == 1:
        return plan
    return plan._replace(
        second=how.draw(count, stream(seed, "augment", epoch, 1)),
        second_further=how.draw_further(count, seed, epoch, 1),
    )


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut ``count`` samples into as few batches as ``batch_size`` allows, all of the same size but for one sample.

    A small left-over batch is not harmless: behind batch normalization a last batch of 2 of 258 digits, once an
    epoch, took a linear head from 97 to 69 % on its own training images, and a head that normalizes its features
    much less, which would have passed for a merit of that head.

    Returns:
        (start, stop) of each batch.

    Raises:
        ValueError: If there is no sample.

    Example:
        >>> batch_bounds(9, 4)
        [(0, 3), (3, 6), (6, 9)]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if count < 1:
        raise ValueError("a loader needs at least one sample, and its indices are empty")
    steps = -(-count // batch_size)
    if batch_size > 1:
        steps = min(steps, max(1, count // 2))  # a sample on its own has no batch variance
    return [(step * count // steps, (step + 1) * count // steps) for step in range(steps)]


def check_views(views: int, how: Augment | None) -> None:
    """Refuse a number of views that no batch can have.

    Raises:
        ValueError: If it is not 1 or 2, or two views are asked for without an augmentation that tells them apart.
    """
    if views not in (1, 2):
        raise ValueError(f"a batch holds 1 or 2 views of each image, got views={views}")
    if views == 2 and (how is None or not how.random):
        raise ValueError(f"two views of an image differ by augmentation, got augment={how}: let it crop or flip")


def check_start(start: int, steps: int) -> None:
    """Refuse a first step outside the epoch; ``start == steps`` is an epoch already done.

    Raises:
        ValueError: If start is negative or beyond the last step.
    """
    if not 0 <= start <= steps:
        raise ValueError(f"an epoch of {steps} steps can start at step 0 to {steps}, got {start}")
