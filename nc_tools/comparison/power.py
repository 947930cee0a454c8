"""The power of the paired t test: which true differences it can detect, and how many pairs that takes."""

from __future__ import annotations

import math

from scipy.special import nctdtr, stdtrit

_MOST_PAIRS = 100_000


def power(difference: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Return the probability that the paired t test detects a true mean difference.

    With c the critical value t(1 - alpha/2; n - 1) and T noncentral t with n - 1 degrees of freedom and
    noncentrality |difference| sqrt(n) / sd, the power is P(T > c) + P(T < -c).
    Source: Cohen (1988), "Statistical power analysis", chapter 2; here with the exact distribution.

    Example:
        >>> round(power(1.0, 1.0, 10), 3)
        0.803
    """
    return _power(abs(difference) * math.sqrt(n) / sd, n, alpha)


def _power(noncentrality: float, n: int, alpha: float) -> float:
    critical = float(stdtrit(n - 1, 1 - alpha / 2))
    lower = float(nctdtr(n - 1, noncentrality, -critical))
    # For a large noncentrality the far tail underflows to nan; it is zero there.
    return 1.0 - float(nctdtr(n - 1, noncentrality, critical)) + (0.0 if math.isnan(lower) else lower)


def detectable_difference(sd: float, n: int, *, alpha: float = 0.05, target: float = 0.8) -> float | None:
    """Return the smallest true mean difference that a paired t test of n pairs detects with the target power.

    "No difference found" means little if this number is larger than the differences that matter. Solves
    power(difference) = target for the difference. The sd is the observed one and itself uncertain.

    Args:
        sd: Standard deviation of the paired differences, in the metric's unit.
        n: Number of pairs.
        alpha: Two-sided level of the test; the strictest step of Holm's method for m tests uses alpha / m.
        target: Power, in (alpha, 1).

    Returns:
        The difference in the metric's unit, or None if n < 2 or sd = 0.

    Example:
        >>> round(detectable_difference(1.0, 5), 2)
        1.68
    """
    if n < 2 or sd <= 0:
        return None
    low, high = 0.0, 4.0
    while _power(high, n, alpha) < target:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _power(middle, n, alpha) < target else (low, middle)
    return high * sd / math.sqrt(n)


def pairs_needed(difference: float, sd: float, *, alpha: float = 0.05, target: float = 0.8) -> int | None:
    """Return the number of pairs at which a paired t test detects a true mean difference with the target power.

    Returns:
        The smallest n, or None if the difference or the sd is zero or 100,000 pairs are not enough.

    Example:
        >>> pairs_needed(1.0, 1.0)
        10
    """
    if difference == 0 or sd <= 0 or power(difference, sd, _MOST_PAIRS, alpha=alpha) < target:
        return None
    low, high = 1, 2
    while power(difference, sd, high, alpha=alpha) < target:
        low, high = high, min(2 * high, _MOST_PAIRS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(difference, sd, middle, alpha=alpha) < target else (low, middle)
    return high
