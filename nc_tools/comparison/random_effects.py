"""Standard error of a mean over two crossed random factors, such as seeds and frames, or seeds and test images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nc_tools.comparison.statistics import t_quantile

_LEVEL = 0.975


@dataclass(frozen=True)
class ErrorTerm:
    """An estimated variance of a mean, and its degrees of freedom.

    Attributes:
        variance: At least 0, in squared units of the metric.
        df: Degrees of freedom of the estimate; infinite if it is known exactly.
        fixed: The part of the variance that more levels of the first factor, such as seeds, do not reduce.
    """

    variance: float
    df: float
    fixed: float = 0.0


def crossed_error(table: Sequence[Sequence[float]] | np.ndarray[Any, Any]) -> ErrorTerm:
    """Return the variance of the mean of a table whose rows and columns are both random, such as seeds x frames.

    The model is y_sf = mu + seed_s + frame_f + rest_sf. With the mean squares of the two-way table without replication
    the variance of the mean over new seeds and new frames is estimated by (MS_seed + MS_frame - MS_rest) / (S F).
    Source: Searle, Casella and McCulloch (1992), "Variance components", section 4.4; degrees of freedom after
    Satterthwaite (1946), "An approximate distribution of estimates of variance components". A component whose estimate
    is negative counts as 0.

    Args:
        table: One value per seed and frame (S, F), complete, both at least 2.

    Example:
        >>> term = crossed_error([[0.0, 1.0], [0.5, 1.9]])
        >>> round(term.variance, 4), round(term.df, 2)
        (0.4725, 1.54)
    """
    values = np.asarray(table, dtype=np.float64)
    rows, columns = values.shape
    mean, by_row, by_column = values.mean(), values.mean(axis=1), values.mean(axis=0)
    left = values - by_row[:, None] - by_column[None, :] + mean
    cells = rows * columns
    return combine(
        ErrorTerm(float(by_row.var(ddof=1)) / rows, rows - 1),
        ErrorTerm(float(by_column.var(ddof=1)) / columns, columns - 1),
        ErrorTerm(float((left**2).sum()) / ((rows - 1) * (columns - 1)) / cells, (rows - 1) * (columns - 1)),
    )


def combine(first: ErrorTerm, second: ErrorTerm, shared: ErrorTerm) -> ErrorTerm:
    """Return first + second - shared: the variance of a mean over two crossed factors.

    Both terms include the variance of the rest (the interaction of the factors), which is subtracted once. A factor
    whose own variance is then negative counts as 0. Degrees of freedom are Satterthwaite's.

    Example:
        >>> term = combine(ErrorTerm(3.0, 4), ErrorTerm(2.0, 9), ErrorTerm(1.0, 36))
        >>> term.variance, round(term.df, 2)
        (4.0, 5.88)
    """
    above = [term for term in (first, second) if term.variance > shared.variance]
    if not above:
        return shared
    fixed = max(second.variance - shared.variance, 0.0)
    if len(above) == 1:
        return ErrorTerm(above[0].variance, above[0].df, fixed)
    total = first.variance + second.variance - shared.variance
    parts = sum(term.variance**2 / term.df for term in (first, second, shared) if not math.isinf(term.df))
    return ErrorTerm(total, total**2 / parts if parts > 0 else math.inf, fixed)


def combine_conservatively(first: ErrorTerm, second: ErrorTerm, shared: ErrorTerm) -> ErrorTerm:
    """Return the variance of a mean over two crossed factors, for an interval that may be too wide but not too narrow.

    The variance is first + second - shared, as in `combine`. Satterthwaite's degrees of freedom come from the estimated
    variances: with five seeds they are too many whenever the seeds happen to lie close together, and the interval then
    covers 94 instead of 95 %. Here the critical value is the mean of those of both factors, weighted by their
    variances; the degrees of freedom are those that give it.
    Source: Cochran and Cox (1957), "Experimental designs", section 4.14.

    Args:
        first: Variance of the mean over the first factor, such as seeds, with few degrees of freedom.
        second: The same of the second factor, such as test images.
        shared: Variance of the rest, which both include.

    Example:
        >>> term = combine_conservatively(ErrorTerm(1.0, 4), ErrorTerm(1.0, 500), ErrorTerm(0.0, 2000))
        >>> term.variance, round(term.df, 1)
        (2.0, 6.9)
    """
    low, high = max(first.variance, shared.variance), max(second.variance - shared.variance, 0.0)
    total = low + high
    if total == 0:
        return ErrorTerm(0.0, first.df)
    few, many = sorted((first.df, second.df))
    critical = (low * t_quantile(first.df, _LEVEL) + high * t_quantile(second.df, _LEVEL)) / total
    for _ in range(60):
        middle = math.sqrt(few * many)
        few, many = (middle, many) if t_quantile(middle, _LEVEL) > critical else (few, middle)
    return ErrorTerm(total, math.sqrt(few * many), high)
