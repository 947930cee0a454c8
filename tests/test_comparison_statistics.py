import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nc_tools.comparison.power import detectable_difference, pairs_for_width, pairs_needed, power
from nc_tools.comparison.statistics import holm, mcnemar, mean_and_sd, paired_difference, sign_flip

values = st.floats(-10, 10, allow_nan=False).map(lambda x: round(x, 3))
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=12)


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_paired_difference_is_scipys_paired_t_test(both):
    arm, reference = [a for a, _ in both], [b for _, b in both]
    result = paired_difference(arm, reference)
    if np.ptp(np.subtract(arm, reference)) < 1e-9:
        assert result.p is None
        assert "identical" in result.note
        return
    expected = stats.ttest_rel(arm, reference)
    interval = expected.confidence_interval(0.95)
    assert result.p == pytest.approx(expected.pvalue, rel=1e-7, abs=1e-12)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-7)
    assert result.mean == pytest.approx(np.mean(arm) - np.mean(reference), abs=1e-9)


def test_swapping_the_sides_turns_the_sign_and_nothing_else():
    one, other = [0.7, 0.8, 0.75], [0.6, 0.82, 0.7]
    there, back = paired_difference(one, other), paired_difference(other, one)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low))
    assert back.p == pytest.approx(there.p)


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says_at_five_seeds():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(20_000):
        seed_effect = generator.normal(0, 3, 5)
        reference = seed_effect + generator.normal(0, 1, 5)
        result = paired_difference(seed_effect + 0.7 + generator.normal(0, 1, 5), reference)
        covered += result.low <= 0.7 <= result.high
    # Three standard errors of a share of .95 at 20,000 repeats.
    assert covered / 20_000 == pytest.approx(0.95, abs=0.0045)


def test_one_pair_has_no_interval_and_says_so():
    result = paired_difference([0.5], [0.4])
    assert (result.sd, result.low, result.high, result.p) == (None, None, None, None)
    assert "one pair" in result.note


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_differences_without_spread_have_no_test(shift):
    reference = [0.1, 0.2, 0.7]
    result = paired_difference([value + shift for value in reference], reference)
    assert (result.sd, result.p, result.low) == (0.0, None, None)
    assert "identical" in result.note


@pytest.mark.parametrize(("arm", "reference"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0])])
def test_values_that_are_not_pairs_are_refused(arm, reference):
    with pytest.raises(ValueError, match=r"pair"):
        paired_difference(arm, reference)


def test_mean_and_sd_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        mean_and_sd([])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
@settings(deadline=None)
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    """The closure principle: a hypothesis falls when Bonferroni rejects every intersection with it."""
    indices = range(len(p_values))
    sizes = range(1, len(p_values) + 1)
    subsets = [subset for size in sizes for subset in itertools.combinations(indices, size)]
    bonferroni = {subset: min(1.0, len(subset) * min(p_values[j] for j in subset)) for subset in subsets}
    expected = [max(p for subset, p in bonferroni.items() if i in subset) for i in indices]
    assert holm(p_values) == pytest.approx(expected)


def test_holm_on_a_published_kind_of_example():
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1, math.inf])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(ValueError, match=r"p values must be numbers in \[0, 1\], got"):
        holm([bad, 0.01])


def test_holm_keeps_the_family_error_when_nothing_is_true():
    generator = np.random.default_rng(5)
    shared = generator.normal(size=(4000, 1))
    z = 0.7 * shared + math.sqrt(1 - 0.49) * generator.normal(size=(4000, 6))
    p = 2 * stats.norm.sf(np.abs(z))
    assert np.mean([min(holm(list(row))) < 0.05 for row in p]) <= 0.055


@pytest.mark.parametrize(("n", "alpha"), [(3, 0.05), (5, 0.05), (5, 0.05 / 6), (12, 0.05)])
def test_power_matches_simulated_experiments(n, alpha):
    difference = detectable_difference(2.0 / math.sqrt(n), n - 1, alpha=alpha)
    generator = np.random.default_rng(n)
    draws = generator.normal(difference, 2.0, (100_000, n))
    t = draws.mean(1) / (draws.std(1, ddof=1) / math.sqrt(n))
    result = np.mean(2 * stats.t.sf(np.abs(t), n - 1) < alpha)
    assert result == pytest.approx(0.8, abs=0.006)
    assert power(difference, 2.0, n, alpha=alpha) == pytest.approx(0.8, abs=1e-8)


def test_power_of_no_difference_is_alpha():
    assert power(0.0, 1.0, 5, alpha=0.05) == pytest.approx(0.05)


def test_detectable_difference_scales_with_the_spread_and_falls_with_n():
    assert detectable_difference(3.0, 4) == pytest.approx(3 * detectable_difference(1.0, 4))
    result = [detectable_difference(1.0 / math.sqrt(n), n - 1) for n in (2, 3, 5, 10, 100)]
    assert result == sorted(result, reverse=True)
    assert detectable_difference(1.0, 0) is None
    assert detectable_difference(0.0, 4) is None


def test_two_pairs_at_a_strict_level_still_have_an_answer():
    # df = 1 with a critical value near 76: the noncentrality runs into the hundreds.
    result = detectable_difference(1.0 / math.sqrt(2), 1, alpha=0.05 / 6)
    assert result is not None
    assert power(result, 1.0, 2, alpha=0.05 / 6) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(("effect", "needed"), [(0.5, 34), (0.8, 15), (0.2, 199)])
def test_pairs_needed_are_the_tabled_ones(effect, needed):
    """The sample sizes that every table of the two-sided paired t test gives at .05 and power .8."""
    assert pairs_needed(effect, 1.0) == needed
    assert power(effect, 1.0, needed) >= 0.8 > power(effect, 1.0, needed - 1)


def test_pairs_needed_for_nothing_is_no_number():
    assert pairs_needed(0.0, 1.0) is None
    assert pairs_needed(1e-6, 1.0) is None


def test_pairs_needed_beside_a_variance_that_stays_have_the_power_in_simulated_experiments():
    """The test images are the same for all seeds: their variance stays however many seeds there are."""
    fixed = 0.05
    needed = pairs_needed(1.0, 1.0, fixed=fixed)
    generator = np.random.default_rng(5)
    differences = 1 + generator.normal(0, 1, (20_000, needed)) + generator.normal(0, fixed**0.5, (20_000, 1))
    seeds = differences.var(axis=1, ddof=1) / needed
    df = (seeds + fixed) ** 2 / (seeds**2 / (needed - 1))
    detected = np.abs(differences.mean(axis=1)) / np.sqrt(seeds + fixed) > stats.t.ppf(0.975, df)
    assert detected.mean() == pytest.approx(0.8, abs=0.02)
    assert pairs_needed(1.0, 1.0) < needed
    assert pairs_needed(1.0, 1.0, fixed=0.13) is None  # 2.8 standard errors are not reached: 1 / sqrt(.13) = 2.77


def test_pairs_for_a_width_without_spread_and_for_no_width():
    assert pairs_for_width(0.5, 0.0) == 2
    assert pairs_for_width(0.0, 0.0) is None
    assert pairs_for_width(-0.5, 1.0) is None


@pytest.mark.parametrize("n", [6, 7, 9])
def test_sign_flip_is_scipys_exact_permutation(n):
    differences = np.random.default_rng(n).normal(0.5, 1, n)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip(list(differences)) == pytest.approx(expected.pvalue)


def test_sign_flip_is_silent_below_six_pairs_where_it_cannot_reach_five_per_cent():
    assert sign_flip([1.0] * 5) is None
    assert sign_flip([1.0] * 6) == 2.0**-5
    assert sign_flip([1.0] * 21) is None


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_mcnemar_is_the_exact_binomial_test(b, c):
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected)


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(ValueError, match="must be at least 0, got -1 and 2"):
        mcnemar(-1, 2)


def test_noncentral_t_agrees_with_an_integral_written_out():
    """P(T <= t) = E over s of Phi(t s - delta), s^2 chi-squared over its degrees of freedom."""
    n, delta, alpha = 5, 2.4, 0.05
    quantiles = (np.arange(200_000) + 0.5) / 200_000
    s = np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    expected = np.mean(stats.norm.sf(critical * s - delta) + stats.norm.cdf(-critical * s - delta))
    assert power(delta / math.sqrt(n), 1.0, n, alpha=alpha) == pytest.approx(expected, abs=1e-5)
