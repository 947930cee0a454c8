"""Polytopes: the Gram matrices of their definitions."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.geometry import cube, orthoplex

few_or_many = st.integers(2, 70)


@given(few_or_many)
@settings(max_examples=30, deadline=None)
def test_orthoplex_pairs_are_opposite_and_all_others_orthogonal(classes: int) -> None:
    frame = orthoplex(classes)
    assert frame.shape == (classes, math.ceil(classes / 2))
    for i, j in itertools.product(range(classes), repeat=2):
        expected = 1.0 if i == j else -1.0 if i // 2 == j // 2 else 0.0
        assert float(frame[i] @ frame[j]) == expected


@given(few_or_many)
@settings(max_examples=30, deadline=None)
def test_cube_cosines_count_the_digits_that_differ(classes: int) -> None:
    frame = cube(classes)
    dim = math.ceil(math.log2(classes))
    assert frame.shape == (classes, dim)
    assert len({tuple(row) for row in frame.tolist()}) == classes
    for i, j in itertools.product(range(classes), repeat=2):
        differ = bin(i ^ j).count("1")
        assert float(frame[i] @ frame[j]) == pytest.approx(1 - 2 * differ / dim, abs=1e-12)


def test_bad_input_raises_and_suggests_a_fix() -> None:
    for polytope in (orthoplex, cube):
        with pytest.raises(ValueError, match="at least 2 classes, got 1"):
            polytope(1)
