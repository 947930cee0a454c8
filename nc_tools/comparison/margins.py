"""Tests of non-inferiority and equivalence: is an arm no worse than its reference by more than a margin?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nc_tools.comparison.statistics import PairedDifference, holm, t_quantile, t_tail


@dataclass(frozen=True)
class MarginTest:
    """The tests of one arm against its reference with a margin that was fixed before the runs.

    Attributes:
        arm: The arm.
        reference: Its reference.
        bound: Lower one-sided 95 % confidence bound of the gain, unadjusted. The gain is the difference in the
            direction in which larger is better, so a negative bound means: worse by at most its absolute value.
        p_noninferior: Holm-adjusted one-sided p of the null hypothesis "worse by the margin or more".
        p_equivalent: Holm-adjusted p of the null hypothesis "different by the margin or more", in either direction.
    """

    arm: str
    reference: str
    bound: float
    p_noninferior: float
    p_equivalent: float


def margin_p(paired: PairedDifference, margin: float, *, higher_is_better: bool) -> tuple[float, float]:
    """Return the p values of non-inferiority and of equivalence, unadjusted.

    With d the difference in the direction in which higher is better, e its standard error and T Student's t:
    non-inferiority rejects "d <= -margin" with p = P(T > (d + margin) / e); equivalence rejects both that and
    "d >= margin", with the larger of the two p.
    Source: Schuirmann (1987), "A comparison of the two one-sided tests procedure and the power approach for assessing
    the equivalence of average bioavailability".

    Args:
        paired: The difference with its standard error.
        margin: In the metric's unit, positive.
        higher_is_better: Direction of the metric.

    Raises:
        ValueError: If there is no standard error, or the margin is not positive.

    Example:
        >>> from nc_tools.comparison.statistics import paired_difference
        >>> close = paired_difference([0.700, 0.712, 0.689, 0.721], [0.701, 0.710, 0.690, 0.720])
        >>> [round(p, 4) for p in margin_p(close, 0.005, higher_is_better=True)]
        [0.003, 0.004]
    """
    if not margin > 0:
        raise ValueError(f"the margin must be positive, got {margin}")
    if paired.error is None or paired.df is None:
        raise ValueError("a test with a margin needs a standard error; run at least two seeds that differ")
    gain = paired.mean if higher_is_better else -paired.mean
    noninferior = t_tail(paired.df, (gain + margin) / paired.error)
    return noninferior, max(noninferior, t_tail(paired.df, (margin - gain) / paired.error))


def margin_tests(
    pairs: Sequence[tuple[str, str, PairedDifference]], margin: float, *, higher_is_better: bool
) -> tuple[MarginTest, ...]:
    """Test every arm with the same margin; each kind of p value is Holm-adjusted over the arms.

    Args:
        pairs: (arm, reference, difference); those without a standard error are left out.
        margin: In the metric's unit, positive.
        higher_is_better: Direction of the metric.
    """
    complete = [(arm, reference, paired) for arm, reference, paired in pairs if paired.error is not None]
    raw = [margin_p(paired, margin, higher_is_better=higher_is_better) for _, _, paired in complete]
    adjusted = [holm([p[kind] for p in raw]) for kind in (0, 1)]
    tests = []
    for index, (arm, reference, paired) in enumerate(complete):
        error, df = paired.error or 0.0, paired.df or 1.0
        gain = paired.mean if higher_is_better else -paired.mean
        bound = gain - t_quantile(df, 0.95) * error
        tests.append(MarginTest(arm, reference, bound, adjusted[0][index], adjusted[1][index]))
    return tuple(tests)
