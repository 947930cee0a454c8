"""The statistics of a paired comparison, as free functions of plain numbers.

A recipe is judged over seeds: the pairs are the unit, not the test images (Bouthillier et al. 2021, "Accounting for
variance in machine learning benchmarks"; Dror et al. 2018, "The hitchhiker's guide to testing statistical significance
in natural language processing"). Only `mcnemar` looks at images, and answers another question.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, nctdtr, stdtr, stdtrit

_EXACT_FLIPS = 20
_MOST_PAIRS = 100_000


@dataclass(frozen=True)
class PairedDifference:
    """What the pairs say about one arm minus its reference.

    Attributes:
        n: Number of pairs.
        mean: Mean difference, arm minus reference.
        sd: Standard deviation of the differences (n - 1 in the denominator), None for one pair.
        low: Lower end of the confidence interval, None where none can be given.
        high: Upper end.
        p: Two-sided p of the paired t test, uncorrected, None where there is no test.
        differences: The single differences, in the order of the pairs.
        note: Why an interval is missing, or "".
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    differences: tuple[float, ...]
    note: str = ""


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation, which one value does not have.

    Example:
        >>> mean_and_sd([1.0, 2.0, 3.0])
        (2.0, 1.0)
        >>> mean_and_sd([1.0])
        (1.0, None)
    """
    if len(values) == 0:
        raise ValueError("a mean needs at least one value, got none: finish a run first")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def paired_difference(
    arm: Sequence[float], reference: Sequence[float], *, confidence: float = 0.95
) -> PairedDifference:
    """Judge an arm against its reference by the differences within pairs.

    With d_i = arm_i - reference_i, m their mean and s their standard deviation, the interval is
    m +- t(1 - alpha/2; n - 1) s / sqrt(n) and p = 2 P(T_{n-1} > |m| sqrt(n) / s).
    Source: Student (1908), "The probable error of a mean". It assumes roughly normal differences; at five
    pairs its coverage holds where a bootstrap's does not.

    Args:
        arm: One value per pair (n,).
        reference: The reference's values for the same pairs (n,).
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        Mean difference, interval and p. One pair, or differences that are all the same, have no interval and no p,
        and say why.

    Raises:
        ValueError: If the lengths differ, there is no pair, or a value is not finite.

    Example:
        >>> found = paired_difference([0.72, 0.75, 0.71], [0.70, 0.71, 0.70])
        >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4)
        (0.0233, -0.0146, 0.0613)
    """
    if len(arm) != len(reference) or len(arm) == 0:
        raise ValueError(
            f"pairs need as many values on both sides and at least one, got {len(arm)} and {len(reference)}: "
            "keep the seeds that both have"
        )
    both = np.asarray([arm, reference], dtype=np.float64)
    if not np.isfinite(both).all():
        raise ValueError("paired values must be finite, got nan or infinity: leave such a seed out by name")
    each = both[0] - both[1]
    n, values = len(each), tuple(float(d) for d in each)
    mean, sd = mean_and_sd(values)
    if sd is None:
        return PairedDifference(1, mean, None, None, None, None, values, "one pair: no interval and no test")
    # Differences of equal numbers differ in the last bit; 1e-12 of their size is far below any real spread.
    if np.ptp(each) <= 1e-12 * max(float(np.abs(both).max()), 1e-300):
        note = f"all {n} differences are identical: a t interval does not apply"
        return PairedDifference(n, mean, 0.0, None, None, None, values, note)
    error = sd / math.sqrt(n)
    reach = float(stdtrit(n - 1, 0.5 + confidence / 2)) * error
    p = float(2 * stdtr(n - 1, -abs(mean) / error))
    return PairedDifference(n, mean, sd, mean - reach, mean + reach, p, values)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p values of one family, so that the chance of any false finding in it stays below alpha.

    Sorted upwards, the i-th of m becomes max over j <= i of min(1, (m - j + 1) p_(j)).
    Source: Holm (1979), "A simple sequentially rejective multiple test procedure". No independence is
    assumed, which matters here: all arms share the baseline.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    m = len(p_values)
    corrected, largest = [0.0] * m, 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def power(difference: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Return the chance that the paired t test finds a true mean difference.

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
    # The far tail underflows to nan for a large noncentrality, where it is nothing.
    return 1.0 - float(nctdtr(n - 1, noncentrality, critical)) + (0.0 if math.isnan(lower) else lower)


def detectable_difference(sd: float, n: int, *, alpha: float = 0.05, target: float = 0.8) -> float | None:
    """Return the smallest true mean difference that n pairs find with the wanted power.

    It says what a comparison could have seen: "no difference found" means little when it is larger than what one cares
    about. Solves power(difference) = target for the difference; the sd is the observed one, itself uncertain.

    Args:
        sd: Standard deviation of the paired differences, in the metric's unit.
        n: Number of pairs.
        alpha: Two-sided level of the test; a family of m arms needs alpha / m at Holm's strictest step.
        target: Wanted power, in (alpha, 1).

    Returns:
        The difference in the metric's unit, or None where n < 2 or sd = 0 leave nothing to solve.

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
    """Return how many pairs find a true mean difference with the wanted power.

    Returns:
        The smallest n, or None where the difference or the sd is zero, or where 100,000 pairs would not do.

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


def sign_flip(differences: Sequence[float]) -> float | None:
    """Return the exact two-sided p of the sign-flip permutation test, where n makes it worth giving.

    The share of the 2^n sign patterns whose mean is at least as far from zero as the observed one. It assumes
    only that differences are symmetric around zero under the null, but cannot go below 2^(1 - n): with fewer
    than six pairs it can never reach .05.
    Source: Fisher (1935), "The design of experiments", section 21.

    Returns:
        p, or None for n < 6 (it could not say anything) and n > 20 (it would no longer be exact).

    Example:
        >>> sign_flip([1.0, 2.0, 1.5, 0.5, 1.0, 2.5])
        0.03125
    """
    n = len(differences)
    if n < 6 or n > _EXACT_FLIPS:
        return None
    values = np.abs(np.asarray(differences, dtype=np.float64))
    observed = abs(float(np.sum(differences)))
    half = n // 2
    first, second = (_signed_sums(part) for part in (values[:half], values[half:]))
    reached = np.abs(first[:, None] + second[None, :]) >= observed - 1e-12 * values.sum()
    return float(reached.mean())


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """All sums of +-values, (2^len,)."""
    signs = np.asarray(list(itertools.product((-1.0, 1.0), repeat=len(values))))
    return np.asarray(signs @ values)


def mcnemar(only_reference: int, only_arm: int) -> float:
    """Return the exact two-sided p that two trained models are right equally often on the same images.

    Only images on which they disagree speak: under the null each goes to either model with probability 1/2,
    so that p = min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2).
    Source: McNemar (1947), "Note on the sampling error of the difference between correlated proportions",
    with exact binomial tails instead of its chi-squared approximation. It answers "do these two trained
    models differ", not "do these two recipes differ", and so is given per seed and never pooled.

    Args:
        only_reference: Images that only the reference gets right (b).
        only_arm: Images that only the arm gets right (c).

    Example:
        >>> round(mcnemar(1, 5), 5)
        0.21875
        >>> mcnemar(0, 0)
        1.0
    """
    if min(only_reference, only_arm) < 0:
        raise ValueError(f"counts of images must not be negative, got {only_reference} and {only_arm}")
    together = only_reference + only_arm
    return 1.0 if together == 0 else min(1.0, 2 * float(bdtr(min(only_reference, only_arm), together, 0.5)))
