"""Split the variance of an arm's runs into the parts of seeds, of draws (random class vectors), and the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class VarianceShares:
    """Variance of one metric between seeds, between draws (random class vectors), and the rest.

    Attributes:
        num_seeds: Rows of the complete table.
        num_draws: Columns of it.
        seed: Variance between seeds.
        draw: Variance between draws.
        rest: The remainder: the interaction of the two and all other randomness.
        clipped: Components whose estimate was negative and was set to 0.
    """

    num_seeds: int
    num_draws: int
    seed: float
    draw: float
    rest: float
    clipped: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """The variance of one run: the sum of the three components."""
        return self.seed + self.draw + self.rest

    def share(self, component: float) -> float | None:
        """Return a component's share of the total variance; None if nothing varies."""
        return component / self.total if self.total > 0 else None

    @property
    def draw_error(self) -> float:
        """Standard error that the choice of draws adds to the arm's mean: sqrt(draw / num_draws).

        The t interval over seeds holds for these draws. For the mean over all possible draws, add this standard error
        in quadrature.
        """
        return math.sqrt(self.draw / self.num_draws)


def variance_shares(values: Sequence[Sequence[float]] | np.ndarray[Any, Any]) -> VarianceShares:
    """Split the variance of values, an array (seeds, draws), into the parts of seeds, draws and the rest.

    The model is y_sd = mu + seed_s + draw_d + rest_sd with independent random effects. With the mean squares
    of the two-way table without replication, rest = MS_rest, seed = (MS_seed - MS_rest) / num_draws and
    draw = (MS_draw - MS_rest) / num_seeds; a negative estimate is set to 0 and named in ``clipped``.
    Source: the method of moments for random effects, Searle, Casella and McCulloch (1992), "Variance components",
    section 4.4. With three draws the draws' share has two degrees of freedom and is a rough estimate.

    Args:
        values: One metric (num_seeds, num_draws), complete, at least 2 x 2.

    Raises:
        ValueError: If the table is smaller than 2 x 2 or not finite.

    Example:
        >>> shares = variance_shares([[1.0, 1.0], [3.0, 3.0]])
        >>> shares.seed, shares.draw, shares.rest
        (2.0, 0.0, 0.0)
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(
            f"variance shares need a finite seeds x draws table of at least 2 x 2, got shape {table.shape}. "
            "Run more seeds or draws"
        )
    num_seeds, num_draws = table.shape
    mean, by_seed, by_draw = table.mean(), table.mean(axis=1), table.mean(axis=0)
    left = table - by_seed[:, None] - by_draw[None, :] + mean
    rest = float((left**2).sum() / ((num_seeds - 1) * (num_draws - 1)))
    seed = float(by_seed.var(ddof=1)) - rest / num_draws
    draw = float(by_draw.var(ddof=1)) - rest / num_seeds
    clipped = tuple(name for name, value in (("seed", seed), ("draw", draw)) if value < 0)
    return VarianceShares(num_seeds, num_draws, max(seed, 0.0), max(draw, 0.0), rest, clipped)
