"""The power of the paired t test: which true differences it can detect, and how many pairs that takes."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import nctdtr

from nc_tools.comparison.statistics import t_quantile

_MOST_PAIRS = 100_000


def power(difference: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Return the probability that the paired t test detects a true mean difference.

    With c the critical value t(1 - alpha/2; n - 1) and T noncentral t with n - 1 degrees of freedom and
    noncentrality |difference| sqrt(n) / sd, the power is P(T > c) + P(T < -c).
    Source: Cohen (1988), "Statistical power analysis", chapter 2; here with the exact distribution.

    Args:
        difference: The true mean difference.
        sd: Standard deviation of the differences, positive.
        n: Number of pairs, at least 2.
        alpha: Two-sided level of the test.

    Example:
        >>> round(power(1.0, 1.0, 10), 3)
        0.803
    """
    return _power(abs(difference) * math.sqrt(n) / sd, n - 1, alpha)


def _power(noncentrality: float, df: float, alpha: float) -> float:
    critical = t_quantile(df, 1 - alpha / 2)
    lower = float(nctdtr(df, noncentrality, -critical))
    # For a large noncentrality the far tail underflows to nan; it is zero there.
    return 1.0 - float(nctdtr(df, noncentrality, critical)) + (0.0 if math.isnan(lower) else lower)


def detectable_difference(error: float, df: float, *, alpha: float = 0.05, target: float = 0.8) -> float | None:
    """Return the smallest true mean difference that a t test with this standard error detects with the target power.

    "No difference found" means little if this number is larger than the differences that matter. Solves
    power(difference) = target for the difference. The standard error is the observed one and itself uncertain.

    Args:
        error: Standard error of the mean difference, in the metric's unit.
        df: Its degrees of freedom; n - 1 for n pairs.
        alpha: Two-sided level of the test; the strictest step of Holm's method for m tests uses alpha / m.
        target: Power, in (alpha, 1).

    Returns:
        The difference in the metric's unit, or None if the error or the degrees of freedom are not positive.

    Example:
        >>> round(detectable_difference(1.0 / math.sqrt(5), 4), 2)
        1.68
    """
    if error <= 0 or df <= 0:
        return None
    low, high = 0.0, 4.0
    while _power(high, df, alpha) < target:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _power(middle, df, alpha) < target else (low, middle)
    return high * error


def pairs_needed(
    difference: float, sd: float, *, fixed: float = 0.0, alpha: float = 0.05, target: float = 0.8
) -> int | None:
    """Return the number of pairs with which a t test detects a true mean difference with the target power.

    Args:
        difference: The true mean difference.
        sd: Standard deviation of the differences.
        fixed: Variance of the mean that more pairs do not reduce, such as that of the test images.
        alpha: Two-sided level of the test.
        target: Power, in (alpha, 1).

    Returns:
        The smallest n, or None if the difference or the sd is zero or 100,000 pairs are not enough.

    Example:
        >>> pairs_needed(1.0, 1.0), pairs_needed(1.0, 1.0, fixed=0.05), pairs_needed(1.0, 1.0, fixed=0.2)
        (10, 15, None)
    """
    if difference == 0 or sd <= 0:
        return None

    def detected(n: int) -> bool:
        error, df = _error(sd, n, fixed)
        return _power(abs(difference) / error, df, alpha) >= target

    return _smallest(detected)


def pairs_for_width(half_width: float, sd: float, *, fixed: float = 0.0, confidence: float = 0.95) -> int | None:
    """Return the number of pairs with which the interval of a mean difference is no wider than wanted.

    Solves t(1 - alpha/2; df) sqrt(sd^2 / n + fixed) <= half_width for n, with Satterthwaite's degrees of freedom.

    Args:
        half_width: Half of the wanted width, in the metric's unit.
        sd: Standard deviation of the differences.
        fixed: Variance of the mean that more pairs do not reduce, such as that of the test images.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The smallest n, or None if the half-width is not positive or 100,000 pairs are not enough.

    Example:
        >>> pairs_for_width(0.5, 1.0), pairs_for_width(0.5, 1.0, fixed=0.1)
        (18, None)
    """
    if half_width <= 0:
        return None

    def reached(n: int) -> bool:
        error, df = _error(sd, n, fixed)
        return t_quantile(df, 0.5 + confidence / 2) * error <= half_width

    return _smallest(reached)


def _error(sd: float, n: int, fixed: float) -> tuple[float, float]:
    """Return the standard error of the mean of n pairs, and Satterthwaite's degrees of freedom."""
    seeds = sd**2 / n
    df = (seeds + fixed) ** 2 / (seeds**2 / (n - 1)) if seeds > 0 else math.inf
    return math.sqrt(seeds + fixed), df


def _smallest(reached: Callable[[int], bool]) -> int | None:
    """Return the smallest number of pairs, at least 2, that reaches a goal; None if 100,000 do not.

    All larger numbers must reach the goal too.
    """
    if not reached(_MOST_PAIRS):
        return None
    low, high = 1, 2
    while not reached(high):
        low, high = high, min(2 * high, _MOST_PAIRS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
