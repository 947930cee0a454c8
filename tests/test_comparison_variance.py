import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.comparison.variance import nested_shares, run_sd, shares_of, variance_shares


def slow(table):
    """The textbook's mean squares, one sum of squares at a time."""
    rows, columns = len(table), len(table[0])
    grand = sum(map(sum, table)) / (rows * columns)
    row_means = [sum(row) / columns for row in table]
    column_means = [sum(row[j] for row in table) / rows for j in range(columns)]
    total = sum((x - grand) ** 2 for row in table for x in row)
    ss_row = columns * sum((m - grand) ** 2 for m in row_means)
    ss_column = rows * sum((m - grand) ** 2 for m in column_means)
    ms_rest = (total - ss_row - ss_column) / ((rows - 1) * (columns - 1))
    seed = (ss_row / (rows - 1) - ms_rest) / columns
    draw = (ss_column / (columns - 1) - ms_rest) / rows
    return max(seed, 0.0), max(draw, 0.0), ms_rest


tables = st.tuples(st.integers(2, 6), st.integers(2, 5), st.integers(0, 10_000)).map(
    lambda shape: np.random.default_rng(shape[2]).normal(size=shape[:2]).tolist()
)


@given(tables)
@settings(deadline=None)
def test_shares_are_the_textbooks_mean_squares(table):
    shares = variance_shares(table)
    assert (shares.seed, shares.frame, shares.rest) == pytest.approx(slow(table), abs=1e-9)
    assert ("seed" in shares.clipped) == (shares.seed == 0)


def test_planted_components_are_found_again():
    generator = np.random.default_rng(1)
    seed, draw = generator.normal(0, 3, (300, 1)), generator.normal(0, 2, (1, 200))
    shares = variance_shares(seed + draw + generator.normal(0, 1, (300, 200)))
    assert (shares.seed, shares.frame, shares.rest) == pytest.approx(
        (seed.var(ddof=1), draw.var(ddof=1), 1.0), rel=0.03
    )
    assert shares.share(shares.seed) + shares.share(shares.frame) + shares.share(shares.rest) == pytest.approx(1)


def test_the_estimate_is_unbiased_at_five_seeds_and_three_draws():
    generator = np.random.default_rng(2)
    estimates = [
        variance_shares(
            generator.normal(0, 2, (5, 1)) + generator.normal(0, 3, (1, 3)) + generator.normal(0, 0.2, (5, 3))
        )
        for _ in range(3000)
    ]
    assert np.mean([one.seed for one in estimates]) == pytest.approx(4, rel=0.08)
    assert np.mean([one.frame for one in estimates]) == pytest.approx(9, rel=0.08)
    assert np.mean([one.rest for one in estimates]) == pytest.approx(0.04, rel=0.08)


def test_a_negative_estimate_becomes_zero_and_is_named():
    shares = variance_shares([[1.0, -1.0], [-1.0, 1.0]])
    assert (shares.seed, shares.frame) == (0.0, 0.0)
    assert shares.clipped == ("seed", "frame")


def test_nothing_varies():
    shares = variance_shares([[1.0, 1.0], [1.0, 1.0]])
    assert shares.total == 0
    assert shares.share(shares.seed) is None


def test_a_share_is_that_of_the_total_also_of_small_variances():
    shares = variance_shares([[0.1, 0.1], [0.3, 0.3]])
    assert 0 < shares.total < 1
    assert shares.share(shares.seed) == pytest.approx(1)
    assert shares.share(shares.frame) == pytest.approx(0)


def test_a_nested_estimate_below_zero_is_named_and_others_are_not():
    assert nested_shares([[1.0, 3.0], [1.0, 3.0]]).clipped == ("seed",)
    assert nested_shares([[1.0, 3.0], [5.0, 7.0]]).clipped == ()


def test_two_seeds_with_several_frames_have_shares_and_one_seed_has_none():
    table = {0: {0: 1.0, 1: 3.0}, 1: {0: 5.0, 1: 7.0}}
    assert shares_of(table, "crossed") == variance_shares([[1.0, 3.0], [5.0, 7.0]])
    assert shares_of(table, "own") == nested_shares([[1.0, 3.0], [5.0, 7.0]])
    assert shares_of({0: table[0]}, "own") is None
    assert shares_of({0: {0: 1.0}, 1: {0: 5.0}}, "own") is None


def test_the_frames_error_falls_with_their_number():
    shares = variance_shares([[0.0, 2.0, 4.0], [0.0, 2.0, 4.0]])
    assert shares.frame_error == pytest.approx(math.sqrt(4.0 / 3))


@pytest.mark.parametrize("table", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, math.nan], [1.0, 2.0]]])
def test_a_table_that_is_too_small_is_refused(table):
    with pytest.raises(ValueError, match="2 x 2"):
        variance_shares(table)


def test_nested_shares_are_unbiased_for_frames_of_their_own():
    """The values of statistics by a one-way table: seeds 1, frames 4, which crossed formulas would misread."""
    generator = np.random.default_rng(3)
    estimates = [
        nested_shares((generator.normal(0, 1, (5, 1)) + generator.normal(0, 2, (5, 3))).tolist()) for _ in range(3000)
    ]
    assert np.mean([one.frame for one in estimates]) == pytest.approx(4, rel=0.05)
    # The negative estimates are set to 0, so the mean is somewhat above 1.
    assert 0.95 < np.mean([one.seed for one in estimates]) < 1.4
    assert all(one.nested and one.rest == 0 for one in estimates)


def test_nested_shares_with_unequal_numbers_match_scipys_one_way_table():
    from scipy.stats import f_oneway

    groups = [[1.0, 2.0, 4.0], [3.0, 7.0], [5.0, 5.5, 9.0, 2.0]]
    shares = nested_shares(groups)
    count, sizes = 9, [3, 2, 4]
    k = (count - sum(n * n for n in sizes) / count) / 2
    ratio = f_oneway(*groups).statistic  # MS_between / MS_within
    assert shares.seed == pytest.approx(max((ratio - 1) * shares.frame / k, 0.0))


@pytest.mark.parametrize("groups", [[[1.0, 2.0]], [[1.0], [2.0]], []])
def test_groups_without_two_frames_are_refused(groups):
    with pytest.raises(ValueError, match="two frames at one of them"):
        nested_shares(groups)


def test_the_sd_of_an_arm_is_that_of_single_runs_however_many_frames_it_has():
    """An arm with three frames a seed must not look steadier than one with one, only because it was averaged."""
    generator = np.random.default_rng(4)
    single, triple = [], []
    for _ in range(2000):
        values = generator.normal(0, 1, (5, 1)) + generator.normal(0, 1, (5, 3))
        frames = {seed: {10 * seed + f: float(v) for f, v in enumerate(row)} for seed, row in enumerate(values)}
        triple.append(run_sd(frames) ** 2)
        single.append(run_sd({seed: {10 * seed: row[10 * seed]} for seed, row in frames.items()}) ** 2)
    assert np.mean(triple) == pytest.approx(2, rel=0.1)
    assert np.mean(single) == pytest.approx(2, rel=0.1)
    assert run_sd({0: {0: 1.0}}) is None
    two = {seed: {10 * seed: float(seed), 10 * seed + 1: seed + 0.5} for seed in range(3)}
    assert run_sd(two) == pytest.approx(math.sqrt(nested_shares([[0, 0.5], [1, 1.5], [2, 2.5]]).total))
    assert run_sd(two) != pytest.approx(np.std([0, 0.5, 1, 1.5, 2, 2.5], ddof=1))


def test_the_error_of_frames_counts_each_seed_alike_where_their_numbers_differ():
    """Against simulated means over seeds; dividing by the largest number of frames would give 0.71 instead of 0.87."""
    shares = nested_shares([[1.0, 3.0], [5.0]])
    assert shares.frame_error == pytest.approx(math.sqrt(2.0 * (1 / 2 + 1)) / 2)
    random = np.random.default_rng(0)
    frames = math.sqrt(shares.frame) * random.normal(size=(100_000, 3))
    means = (frames[:, :2].mean(axis=1) + frames[:, 2]) / 2
    assert shares.frame_error == pytest.approx(means.std(), rel=0.02)
    assert shares.frames_by_seed == "1 to 2"
    assert nested_shares([[1.0, 3.0], [5.0, 7.0]]).frame_error == pytest.approx(math.sqrt(2.0 / 4))
