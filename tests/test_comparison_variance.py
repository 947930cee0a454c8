import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.comparison.variance import variance_shares


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
    assert (shares.seed, shares.draw, shares.rest) == pytest.approx(slow(table), abs=1e-9)
    assert ("seed" in shares.clipped) == (shares.seed == 0)


def test_planted_components_are_found_again():
    generator = np.random.default_rng(1)
    seed, draw = generator.normal(0, 3, (300, 1)), generator.normal(0, 2, (1, 200))
    shares = variance_shares(seed + draw + generator.normal(0, 1, (300, 200)))
    assert (shares.seed, shares.draw, shares.rest) == pytest.approx((seed.var(ddof=1), draw.var(ddof=1), 1.0), rel=0.03)
    assert shares.share(shares.seed) + shares.share(shares.draw) + shares.share(shares.rest) == pytest.approx(1)


def test_the_estimate_is_unbiased_at_five_seeds_and_three_draws():
    generator = np.random.default_rng(2)
    estimates = [
        variance_shares(
            generator.normal(0, 2, (5, 1)) + generator.normal(0, 3, (1, 3)) + generator.normal(0, 0.2, (5, 3))
        )
        for _ in range(3000)
    ]
    assert np.mean([one.seed for one in estimates]) == pytest.approx(4, rel=0.08)
    assert np.mean([one.draw for one in estimates]) == pytest.approx(9, rel=0.08)
    assert np.mean([one.rest for one in estimates]) == pytest.approx(0.04, rel=0.08)


def test_a_negative_estimate_becomes_zero_and_is_named():
    shares = variance_shares([[1.0, -1.0], [-1.0, 1.0]])
    assert (shares.seed, shares.draw) == (0.0, 0.0)
    assert shares.clipped == ("seed", "draw")


def test_nothing_varies():
    shares = variance_shares([[1.0, 1.0], [1.0, 1.0]])
    assert shares.total == 0
    assert shares.share(shares.seed) is None


def test_the_draws_error_falls_with_their_number():
    shares = variance_shares([[0.0, 2.0, 4.0], [0.0, 2.0, 4.0]])
    assert shares.draw_error == pytest.approx(math.sqrt(4.0 / 3))


@pytest.mark.parametrize("table", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, math.nan], [1.0, 2.0]]])
def test_a_table_that_is_too_small_is_refused(table):
    with pytest.raises(ValueError, match="2 x 2"):
        variance_shares(table)
