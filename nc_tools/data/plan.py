"""What happens in an epoch: a function of (seed, epoch) alone, drawn on the CPU before the epoch begins.

A run can therefore stop after any step and go on bit-equal without a saved generator state. And since neither
device nor batch size nor loader enters, a run sees the same order and the same crops on every device, from
memory or files.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nc_tools.data.augmentation import Augment
from nc_tools.seeds import stream


class EpochPlan(NamedTuple):
    """Order of the samples (N,), and the view of each in that order (N,) or None if there is none; int64."""

    order: Tensor
    views: Tensor | None


def plan_epoch(count: int, how: Augment | None, seed: int, epoch: int) -> EpochPlan:
    """Draw an epoch of ``count`` samples from its two streams, "order" and "augment".

    Example:
        >>> plan_epoch(5, None, seed=0, epoch=2).order.sort().values.tolist()
        [0, 1, 2, 3, 4]
    """
    order = torch.randperm(count, generator=stream(seed, "order", epoch))
    return EpochPlan(order, None if how is None else how.draw(count, stream(seed, "augment", epoch)))


def batch_bounds(count: int, batch_size: int, *, drop_last: bool = False) -> list[tuple[int, int]]:
    """Cut ``count`` samples into batches.

    The last batch is smaller where the numbers do not divide. A single left-over sample joins the batch
    before it: on its own it has no batch variance, and BatchNorm would stop the run. ``drop_last`` leaves an
    incomplete batch out.

    Returns:
        (start, stop) of each batch.

    Raises:
        ValueError: If there is no sample, or not one batch.

    Example:
        >>> batch_bounds(9, 4)
        [(0, 4), (4, 9)]
        >>> batch_bounds(9, 4, drop_last=True)
        [(0, 4), (4, 8)]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if count < 1:
        raise ValueError("a loader needs at least one sample, and its indices are empty")
    full, rest = divmod(count, batch_size)
    if drop_last and full == 0:
        raise ValueError(
            f"drop_last leaves no batch of {batch_size} from {count} samples: lower batch_size or keep it"
        )
    bounds = [(k * batch_size, (k + 1) * batch_size) for k in range(full)]
    if rest == 0 or drop_last:
        return bounds
    if rest == 1 and bounds:
        return [*bounds[:-1], (bounds[-1][0], count)]
    return [*bounds, (full * batch_size, count)]


def check_start(start: int, steps: int) -> None:
    """Refuse a first step outside the epoch; ``start == steps`` is an epoch already done.

    Raises:
        ValueError: If start is negative or beyond the last step.
    """
    if not 0 <= start <= steps:
        raise ValueError(f"an epoch of {steps} steps can start at step 0 to {steps}, got {start}")
