"""Non-inferiority and equivalence: against statsmodels' formula by hand, and in the headline."""

import math

import pytest
from scipy import stats
from support.compared_runs import LINEAR, runs

from nc_tools.comparison import Experiment, compare_runs
from nc_tools.comparison.headline import headline
from nc_tools.comparison.margins import margin_p
from nc_tools.comparison.statistics import paired_difference

SHIFTS = [0.001, -0.002, 0.0, 0.001, -0.001]


@pytest.mark.parametrize("higher", [True, False])
def test_the_p_values_are_scipys_one_sided_t_tests(higher):
    arm = [value + shift for value, shift in zip(LINEAR, SHIFTS, strict=True)]
    paired = paired_difference(arm, LINEAR)
    noninferior, equivalent = margin_p(paired, 0.005, higher_is_better=higher)
    gains = [shift if higher else -shift for shift in SHIFTS]
    low = stats.ttest_1samp(gains, -0.005, alternative="greater").pvalue
    high = stats.ttest_1samp(gains, 0.005, alternative="less").pvalue
    assert noninferior == pytest.approx(low, rel=1e-6)
    assert equivalent == pytest.approx(max(low, high), rel=1e-6)


def test_a_margin_without_size_or_spread_is_refused():
    paired = paired_difference([0.7, 0.8], [0.6, 0.75])
    with pytest.raises(ValueError, match="must be positive, got 0"):
        margin_p(paired, 0.0, higher_is_better=True)
    with pytest.raises(ValueError, match="at least two seeds"):
        margin_p(paired_difference([0.7], [0.6]), 0.1, higher_is_better=True)


def test_the_headline_says_which_arms_are_no_worse_and_which_are_alike():
    close = [value + shift for value, shift in zip(LINEAR, SHIFTS, strict=True)]
    above = [value + 0.004 + 2 * shift for value, shift in zip(LINEAR, SHIFTS, strict=True)]
    below = [value - 0.02 + shift for value, shift in zip(LINEAR, SHIFTS, strict=True)]
    experiment = Experiment(protocol={"margin": 0.005})
    text = headline(
        compare_runs(runs(linear=LINEAR, close=close, above=above, below=below), "linear", experiment=experiment)
    )
    assert "close is within 0.5 points of linear in either direction" in text
    assert "above is no worse than linear by more than 0.5 points" in text
    assert "below is" not in text


def test_p_values_of_margins_are_holm_adjusted():
    arms = {f"arm{i}": [value + shift for value, shift in zip(LINEAR, SHIFTS, strict=True)] for i in range(3)}
    experiment = Experiment(protocol={"margin": 0.003})
    comparison = compare_runs(runs(linear=LINEAR, **arms), "linear", experiment=experiment)
    single, _ = margin_p(comparison.test("arm0").paired, 0.003, higher_is_better=True)
    assert [test.p_noninferior for test in comparison.margins] == pytest.approx([3 * single] * 3)
    assert math.isfinite(comparison.margins[0].bound)


def test_a_smoke_run_gives_no_verdict_and_no_margin():
    better = [value + 0.05 + 0.001 * i for i, value in enumerate(LINEAR)]
    experiment = Experiment(smoke=True, protocol={"margin": 0.005})
    comparison = compare_runs(runs(linear=LINEAR, etf=better), "linear", experiment=experiment)
    assert comparison.family.verdict(comparison.test("etf")) == "open"
    assert headline(comparison) == "No verdict: this is a smoke run, and its numbers mean nothing."
    assert comparison.margins == ()
