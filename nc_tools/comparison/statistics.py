"""The statistical tests of a paired comparison, as functions of plain numbers.

Recipes are compared over seeds, so the pairs are the unit, not the test images (Bouthillier et al. 2021, "Accounting
for variance in machine learning benchmarks"; Dror et al. 2018, "The hitchhiker's guide to testing statistical
significance in natural language processing"). Only `mcnemar` looks at images, and it answers another question.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import bdtr, ndtr, ndtri, stdtr, stdtrit

_MIN_FLIPS, _MAX_FLIPS = 6, 20


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference between an arm and its reference over pairs, with interval and p value.

    Attributes:
        n: Number of pairs.
        mean: Mean difference, arm minus reference.
        sd: Standard deviation of the differences (n - 1 in the denominator), None for one pair.
        low: Lower end of the confidence interval, None if there is no interval.
        high: Upper end.
        p: Two-sided p of the t test that the mean is zero, unadjusted, None if there is no test.
        differences: The single differences, in the order of the pairs.
        note: Why there is no interval, or "".
        error: Standard error of the mean, None if there is no test.
        df: Degrees of freedom of the t distribution, not always whole; None if there is no test.
        fixed: The part of the mean's variance that more pairs do not reduce, such as that of the test images.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    differences: tuple[float, ...]
    note: str = ""
    error: float | None = None
    df: float | None = None
    fixed: float = 0.0


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation of values; the latter is None for a single value.

    Raises:
        ValueError: If there is no value.

    Example:
        >>> mean_and_sd([1.0, 2.0, 3.0])
        (2.0, 1.0)
        >>> mean_and_sd([1.0])
        (1.0, None)
    """
    if len(values) == 0:
        raise ValueError("a mean needs at least one value, got none. Finish a run first")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def paired_difference(
    arm: Sequence[float], reference: Sequence[float], *, confidence: float = 0.95
) -> PairedDifference:
    """Test whether the mean difference of two arms is zero, by Student's t test of the differences within pairs.

    With d_i = arm_i - reference_i, m their mean and s their standard deviation, the interval is
    m +- t(1 - alpha/2; n - 1) s / sqrt(n) and p = 2 P(T_{n-1} > |m| sqrt(n) / s).
    Source: Student (1908), "The probable error of a mean". It assumes that the differences are roughly normal. At five
    pairs its interval keeps its coverage, which a bootstrap interval does not.

    Args:
        arm: One value per pair (n,).
        reference: The reference's values for the same pairs (n,).
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        Mean difference, interval and p. For one pair, or if all differences are the same, there is no interval and no
        p, and ``note`` says why.

    Raises:
        ValueError: If the lengths differ, there is no pair, or a value is not finite.

    Example:
        >>> difference = paired_difference([0.72, 0.75, 0.71], [0.70, 0.71, 0.70])
        >>> round(difference.mean, 4), round(difference.low, 4), round(difference.high, 4)
        (0.0233, -0.0146, 0.0613)
    """
    if len(arm) != len(reference) or len(arm) == 0:
        raise ValueError(
            f"pairs need the same number of values on both sides and at least one, got {len(arm)} and "
            f"{len(reference)}. Keep only the seeds that both arms have"
        )
    both = np.asarray([arm, reference], dtype=np.float64)
    if not np.isfinite(both).all():
        raise ValueError("paired values must be finite, got nan or infinity. Leave out the seeds of those values")
    return mean_difference(both[0] - both[1], scale=float(np.abs(both).max()), confidence=confidence)


def mean_difference(
    differences: Sequence[float] | np.ndarray, *, scale: float, test_per_train: float = 0.0, confidence: float = 0.95
) -> PairedDifference:
    """Test whether the mean of independent differences is zero, by the t test of `paired_difference`.

    Args:
        differences: Arm minus reference, one per pair (n,), n >= 1.
        scale: Largest absolute value of the two sides; differences that vary by less than 1e-12 of it are identical.
        test_per_train: Test images per training image if every pair has its own split of the same images into training
            and test. The pairs then share images, and s^2 / n is too small; it becomes (1 / n + test_per_train) s^2.
            Source: Nadeau and Bengio (2003), "Inference for the generalization error", equation 8. 0 for no correction.
        confidence: Coverage of the interval, in (0, 1).
    """
    each = np.asarray(differences, dtype=np.float64)
    n, values = len(each), tuple(float(d) for d in each)
    mean, sd = mean_and_sd(values)
    if sd is None:
        return PairedDifference(1, mean, None, None, None, None, values, "only one pair: no interval and no test")
    # Differences of equal numbers differ in the last bit; 1e-12 of their size is far below any real spread. The square
    # of a spread below 1e-152 is zero.
    if np.ptp(each) <= 1e-12 * max(scale, 1e-140):
        note = f"all {n} differences are identical: no interval and no test"
        return PairedDifference(n, mean, 0.0, None, None, None, values, note)
    unbounded = PairedDifference(n, mean, sd, None, None, None, values)
    error, fixed = sd * math.sqrt(1 / n + test_per_train), test_per_train * sd**2
    return with_error(unbounded, error, n - 1, fixed=fixed, confidence=confidence)


def with_error(
    difference: PairedDifference, error: float, df: float, *, fixed: float = 0.0, confidence: float = 0.95
) -> PairedDifference:
    """Return a difference with the t interval and p that follow from a standard error and its degrees of freedom.

    With m the mean difference, the interval is m +- t(1 - alpha/2; df) error and p = 2 P(T_df > |m| / error).

    Args:
        difference: The difference; its mean is kept.
        error: Standard error of the mean, positive.
        df: Degrees of freedom, positive; infinite for the normal distribution.
        fixed: The part of the mean's variance that more pairs do not reduce.
        confidence: Coverage of the interval, in (0, 1).
    """
    # For n - 1 degrees of freedom p equals that of scipy.stats.ttest_rel to 1e-14, which takes 1.2 ms a call; this
    # takes .1 ms.
    half = t_quantile(df, 0.5 + confidence / 2) * error
    p = 2 * t_tail(df, abs(difference.mean) / error)
    return replace(
        difference,
        low=difference.mean - half,
        high=difference.mean + half,
        p=p,
        note="",
        error=error,
        fixed=fixed,
        df=df,
    )


def t_quantile(df: float, probability: float) -> float:
    """Return the quantile of Student's t distribution; of the normal distribution for infinite df.

    Example:
        >>> round(t_quantile(4, 0.975), 3), round(t_quantile(math.inf, 0.975), 3)
        (2.776, 1.96)
    """
    return float(ndtri(probability) if math.isinf(df) else stdtrit(df, probability))


def t_tail(df: float, value: float) -> float:
    """Return the probability that Student's t is above a value.

    Example:
        >>> round(t_tail(4, 2.776), 4)
        0.025
    """
    return float(ndtr(-value) if math.isinf(df) else stdtr(df, -value))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of one family so that the chance of any false finding in it stays below alpha.

    Sorted upwards, the i-th of m becomes max over j <= i of min(1, (m - j + 1) p_(j)).
    Source: Holm (1979), "A simple sequentially rejective multiple test procedure". It assumes no independence: the
    tests of a comparison share the baseline.

    Raises:
        ValueError: If a p value is NaN or outside [0, 1]; leave a test that cannot be made out of the family.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    m = len(p_values)
    if bad := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"p values must be numbers in [0, 1], got {bad[0]}: leave out tests without a p value")
    adjusted, largest = [0.0] * m, 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def sign_flip(differences: Sequence[float]) -> float | None:
    """Return the exact two-sided p of the sign-flip permutation test for 6 to 20 pairs.

    p is the share of the 2^n sign patterns whose mean is at least as far from zero as the observed one. The test
    assumes only that the differences are symmetric around zero under the null hypothesis. Its p is at least
    2^(1 - n), so that it never reaches .05 with fewer than six pairs.
    Source: Fisher (1935), "The design of experiments", section 21.

    Returns:
        p, or None for n < 6 (p could not reach .05) and n > 20 (too many patterns to count them all).

    Example:
        >>> sign_flip([1.0, 2.0, 1.5, 0.5, 1.0, 2.5])
        0.03125
    """
    # scipy.stats.permutation_test takes 9 s for 20 pairs, this 8 ms. It also misses ties between sums that are zero
    # only up to rounding, and then its p is too small.
    n = len(differences)
    if not _MIN_FLIPS <= n <= _MAX_FLIPS:
        return None
    values = np.abs(np.asarray(differences, dtype=np.float64))
    observed = abs(float(np.sum(differences)))
    half = n // 2
    first, second = (_signed_sums(part) for part in (values[:half], values[half:]))
    at_least = np.abs(first[:, None] + second[None, :]) >= observed - 1e-12 * values.sum()
    return float(at_least.mean())


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """Return the sums of the values for all combinations of signs, an array (2^len,)."""
    signs = np.asarray(list(itertools.product((-1.0, 1.0), repeat=len(values))))
    return np.asarray(signs @ values)


def mcnemar(only_reference: int, only_arm: int) -> float:
    """Return the exact two-sided p of McNemar's test: are two trained models right equally often on the same images?

    Only images on which one model is right and the other wrong count. Under the null hypothesis each model is the right
    one with probability 1/2, so that p = min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2).
    Source: McNemar (1947), "Note on the sampling error of the difference between correlated proportions",
    with exact binomial tails instead of its chi-squared approximation. It compares two trained models, not two recipes,
    and so is given per seed and never pooled.

    Args:
        only_reference: Images that only the reference gets right (b).
        only_arm: Images that only the arm gets right (c).

    Raises:
        ValueError: If a count is negative.

    Example:
        >>> round(mcnemar(1, 5), 5)
        0.21875
        >>> mcnemar(0, 0)
        1.0
    """
    if min(only_reference, only_arm) < 0:
        raise ValueError(f"counts of images must be at least 0, got {only_reference} and {only_arm}")
    images, fewer = only_reference + only_arm, min(only_reference, only_arm)
    # Equal to scipy.stats.binomtest, which takes a second to import and 3 ms a call.
    return min(1.0, 2 * float(bdtr(fewer, images, 0.5)))
