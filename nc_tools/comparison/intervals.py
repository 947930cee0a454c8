"""Intervals of a paired difference: over seeds and frames on the same test images, and over new test images too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.frames import FrameDifferences, frame_of
from nc_tools.comparison.image_values import ImageValues, image_error
from nc_tools.comparison.random_effects import ErrorTerm, combine_conservatively, crossed_error
from nc_tools.comparison.statistics import PairedDifference, mean_difference, with_error

ArmCells = Mapping[tuple[int, int], ComparedRun]
ArmImages = Mapping[tuple[int, int], ImageValues]
"""(seed, draw) -> the primary metric by test image."""


def seed_interval(differences: FrameDifferences, *, test_per_train: float = 0.0) -> PairedDifference | None:
    """Return the mean difference with its interval over seeds and frames, for these test images; None without a pair.

    If every seed has its own frames, the interval is the t interval over the means by seed. If the same frames are at
    every seed, its standard error comes from `crossed_error`. With one frame at all seeds, or some frames at several
    seeds, the t interval over seeds holds for these frames only (see ``FrameDifferences.design``).

    Args:
        differences: The differences by seed and frame.
        test_per_train: As for `mean_difference`.
    """
    if not differences.table:
        return None
    by_seed = differences.by_seed
    paired = mean_difference(list(by_seed.values()), scale=differences.scale, test_per_train=test_per_train)
    if differences.design != "crossed" or len(by_seed) < 2:
        return paired
    frames = sorted(next(iter(differences.table.values())), key=str)
    if len(frames) < 2:
        return paired
    table = np.asarray([[row[frame] for frame in frames] for row in differences.table.values()])
    if np.ptp(table) <= 1e-12 * differences.scale:
        return paired
    term = crossed_error(table)
    return with_error(paired, term.variance**0.5, term.df, fixed=term.fixed)


def image_interval(
    paired: PairedDifference,
    differences: FrameDifferences,
    arm: tuple[ArmCells, ArmImages],
    reference: tuple[ArmCells, ArmImages],
) -> PairedDifference | None:
    """Return a difference with its interval over seeds, frames and test images.

    Seeds and images are crossed random factors, since all seeds are tested on the same images: the variance of the mean
    is that over seeds plus that over images, minus the rest that both include (see `image_error`).

    Args:
        paired: The difference with its interval over seeds and frames.
        differences: The differences by seed and frame from which ``paired`` was computed.
        arm: Runs of the arm, and their values by image; both by (seed, draw).
        reference: The same of the reference.

    Returns:
        The difference with the new interval. None for a single seed; if a run lacks its values by image; if the runs
        have different test images; or if the mean of the values is not the recorded metric.
    """
    if paired.n < 2:
        return None
    by_seed = []
    every: list[ImageValues] = []
    for seed, row in differences.table.items():
        sides = [_mean_values(cells, images, seed, set(row), every) for cells, images in (arm, reference)]
        if sides[0] is None or sides[1] is None or len(sides[0]) != len(sides[1]):
            return None
        by_seed.append(sides[0] - sides[1])
    first = every[0]
    if any(len(v.labels) != len(first.labels) or v.by_class != first.by_class for v in every):
        return None
    if any(v.labels is not first.labels and not np.array_equal(v.labels, first.labels) for v in every):
        return None
    mean = np.stack(by_seed).mean(axis=0)
    recorded = ImageValues(mean, first.labels, first.by_class).metric
    if abs(recorded - paired.mean) > 1e-5 * max(1.0, differences.scale):
        return None
    images, rest = image_error(by_seed, first.labels, by_class=first.by_class)
    over_seeds = (
        ErrorTerm(0.0, 1.0) if paired.error is None or paired.df is None else ErrorTerm(paired.error**2, paired.df)
    )
    term = combine_conservatively(over_seeds, images, rest)
    return with_error(paired, term.variance**0.5, term.df, fixed=term.fixed) if term.variance > 0 else None


def _mean_values(
    cells: ArmCells, images: ArmImages, seed: int, frames: set[Any], every: list[ImageValues]
) -> NDArray[np.float64] | None:
    """Return the mean (N,) over one seed's paired runs by image; None if a run has no values. Extends ``every``."""
    several = any(draw > 0 for _, draw in cells)
    keys: Sequence[tuple[int, int]] = [key for key in cells if key[0] == seed]
    framed = [key for key in keys if frame_of(cells[key], several=several) in frames]
    used = [images.get(key) for key in framed or keys]
    values = [one for one in used if one is not None]
    if not values or len(values) < len(used) or len({len(one.values) for one in values}) > 1:
        return None
    every.extend(values)
    return np.asarray(np.stack([one.values for one in values]).mean(axis=0, dtype=np.float64))
