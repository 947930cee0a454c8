"""Split the variance of runs into the parts of seeds, of frames (fixed random class vectors), and the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nc_tools.comparison.frames import FrameDesign, FrameTable, design_of


@dataclass(frozen=True)
class VarianceShares:
    """Variance of one metric between seeds, between frames (fixed random class vectors), and the rest.

    Attributes:
        num_seeds: Number of seeds.
        num_frames: Number of frames; if nested, the largest number at one seed.
        seed: Variance between seeds.
        frame: Variance between frames; if nested, also that of all other randomness within a seed.
        rest: The remainder: the interaction of the two and all other randomness; 0 if nested.
        clipped: Components whose estimate was negative and was set to 0.
        nested: Whether every seed has frames of its own.
        unequal: The number of frames at each seed, if nested and not the same for all; else empty.
    """

    num_seeds: int
    num_frames: int
    seed: float
    frame: float
    rest: float
    clipped: tuple[str, ...] = ()
    nested: bool = False
    unequal: tuple[int, ...] = ()

    @property
    def total(self) -> float:
        """The variance of one run: the sum of the three components."""
        return self.seed + self.frame + self.rest

    def share(self, component: float) -> float | None:
        """Return a component's share of the total variance; None if nothing varies."""
        return component / self.total if self.total > 0 else None

    @property
    def frames_by_seed(self) -> str:
        """The number of frames at a seed as text, such as "3", or "1 to 3" if it is not the same for all."""
        return f"{min(self.unequal)} to {max(self.unequal)}" if self.unequal else str(self.num_frames)

    @property
    def frame_error(self) -> float:
        """Standard error that the choice of frames adds to the mean over seeds: sqrt(frame / number of frames).

        With unequal numbers n_s of frames at S seeds, each seed's mean counts alike: sqrt(frame sum_s 1/n_s) / S.
        """
        if self.unequal:
            return math.sqrt(self.frame * math.fsum(1 / n for n in self.unequal)) / self.num_seeds
        return math.sqrt(self.frame / (self.num_frames * (self.num_seeds if self.nested else 1)))


def nested_shares(groups: Sequence[Sequence[float]]) -> VarianceShares:
    """Split the variance of values into the parts between seeds and within them, if every seed has its own frames.

    The model is y_sf = mu + seed_s + frame_sf. With the mean squares of the one-way table and k values per seed,
    frame = MS_within and seed = (MS_between - MS_within) / k; a negative estimate is set to 0. With unequal numbers
    n_s of S seeds, k = (N - sum n_s^2 / N) / (S - 1).
    Source: the method of moments for random effects, Searle, Casella and McCulloch (1992), "Variance components",
    section 3.6.

    Args:
        groups: The values of each seed; at least two seeds, and at least one with two values.

    Raises:
        ValueError: If there are fewer seeds or values.

    Example:
        >>> shares = nested_shares([[1.0, 3.0], [5.0, 7.0]])
        >>> shares.seed, shares.frame
        (7.0, 2.0)
    """
    sizes = [len(group) for group in groups]
    count = sum(sizes)
    if len(groups) < 2 or count <= len(groups):
        raise ValueError(
            f"variance shares need at least two seeds, and two frames at one of them, got {sizes} values by seed. "
            "Run more seeds or draws"
        )
    means = [math.fsum(group) / len(group) for group in groups]
    mean = math.fsum(value for group in groups for value in group) / count
    between = math.fsum(n * (m - mean) ** 2 for n, m in zip(sizes, means, strict=True)) / (len(groups) - 1)
    within = math.fsum((value - m) ** 2 for group, m in zip(groups, means, strict=True) for value in group)
    within /= count - len(groups)
    size = (count - sum(n * n for n in sizes) / count) / (len(groups) - 1)
    seed = (between - within) / size
    clipped = ("seed",) if seed < 0 else ()
    unequal = tuple(sizes) if len(set(sizes)) > 1 else ()
    return VarianceShares(
        len(groups), max(sizes), max(seed, 0.0), within, 0.0, clipped, nested=True, unequal=unequal
    )  # fmt: skip


def variance_shares(values: Sequence[Sequence[float]] | np.ndarray[Any, Any]) -> VarianceShares:
    """Split the variance of values, an array (seeds, frames), into the parts of seeds, frames and the rest.

    The model is y_sf = mu + seed_s + frame_f + rest_sf with independent random effects. With the mean squares
    of the two-way table without replication, rest = MS_rest, seed = (MS_seed - MS_rest) / F and
    frame = (MS_frame - MS_rest) / S; a negative estimate is set to 0 and named in ``clipped``.
    Source: the method of moments for random effects, Searle, Casella and McCulloch (1992), "Variance components",
    section 4.4. With three frames their share has two degrees of freedom and is a rough estimate.

    Args:
        values: One metric (S, F), complete, at least 2 x 2.

    Raises:
        ValueError: If the table is smaller than 2 x 2 or not finite.

    Example:
        >>> shares = variance_shares([[1.0, 1.0], [3.0, 3.0]])
        >>> shares.seed, shares.frame, shares.rest
        (2.0, 0.0, 0.0)
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(
            f"variance shares need a finite seeds x frames table of at least 2 x 2, got shape {table.shape}. "
            "Run more seeds or draws"
        )
    num_seeds, num_frames = table.shape
    mean, by_seed, by_frame = table.mean(), table.mean(axis=1), table.mean(axis=0)
    left = table - by_seed[:, None] - by_frame[None, :] + mean
    rest = float((left**2).sum() / ((num_seeds - 1) * (num_frames - 1)))
    seed = float(by_seed.var(ddof=1)) - rest / num_frames
    frame = float(by_frame.var(ddof=1)) - rest / num_seeds
    clipped = tuple(name for name, value in (("seed", seed), ("frame", frame)) if value < 0)
    return VarianceShares(num_seeds, num_frames, max(seed, 0.0), max(frame, 0.0), rest, clipped)


def shares_of(table: FrameTable, design: FrameDesign) -> VarianceShares | None:
    """Return the variance shares of values by seed and frame.

    Returns:
        The shares; None for fewer than two seeds, if no seed has several frames, or if some frames are at several seeds
        without being crossed with them, or are unknown.
    """
    rows = list(table.values())
    if len(rows) < 2 or all(len(row) == 1 for row in rows):
        return None
    if design == "crossed":
        frames = sorted(rows[0], key=str)
        return variance_shares([[row[frame] for frame in frames] for row in rows])
    return nested_shares([list(row.values()) for row in rows]) if design in ("own", "none") else None


def run_sd(table: FrameTable) -> float | None:
    """Return the standard deviation of single runs, which can be compared between arms; None for fewer than two runs.

    With one run per seed it is the sample standard deviation. With several frames per seed it is the root of the sum of
    the variance components, since the values of one seed are alike; without such components (see `shares_of`) it is
    again the sample standard deviation.
    """
    values = [value for row in table.values() for value in row.values()]
    if len(values) < 2:
        return None
    if all(len(row) == 1 for row in table.values()):
        return float(np.std(values, ddof=1))
    shares = shares_of(table, design_of({seed: frozenset(row) for seed, row in table.items()}))
    return float(np.std(values, ddof=1)) if shares is None else math.sqrt(shares.total)
