"""Bounds on the minimal angle: sharp codes, closed forms and tables."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nc_tools.geometry import (
    minimal_angle_bounds,
)
from nc_tools.geometry.code_bounds import closed_form_angle, fejes_toth_angle, levenshtein_cosine
from nc_tools.geometry.known_codes import BEST_KNOWN

SHARP = [(16, 5), (27, 6), (56, 7), (240, 8), (112, 21), (162, 21), (100, 22), (275, 22), (552, 23)]


@pytest.mark.parametrize(("num", "dim"), SHARP)
def test_levenshteins_bound_is_reached_by_the_sharp_codes(num: int, dim: int) -> None:
    assert minimal_angle_bounds(num, dim).upper == pytest.approx(BEST_KNOWN[num, dim], abs=1e-6)


@given(st.integers(3, 40), st.data())
def test_levenshteins_bound_of_strength_three_in_closed_form(dim: int, data: st.DataObject) -> None:
    """K = D (1 - s) (2 + (D + 1) s) / (1 - D s^2) for 2 D < K <= D (D + 3) / 2."""
    num = data.draw(st.integers(2 * dim, dim * (dim + 3) // 2))
    s = levenshtein_cosine(num, dim)
    assert dim * (1 - s) * (2 + (dim + 1) * s) == pytest.approx(num * (1 - dim * s * s), rel=1e-9)


@given(st.integers(3, 30), st.integers(2, 3000))
def test_more_classes_never_have_a_larger_bound(dim: int, num: int) -> None:
    assert minimal_angle_bounds(num + 1, dim).upper <= minimal_angle_bounds(num, dim).upper + 1e-9


@pytest.mark.parametrize(("num", "angle"), [(4, 109.4712206), (6, 90.0), (12, 63.4349488)])
def test_fejes_toths_bound_is_reached_by_triangulated_solids(num: int, angle: float) -> None:
    assert fejes_toth_angle(num) == pytest.approx(angle, abs=1e-6)


def test_the_smaller_of_two_upper_bounds_is_given() -> None:
    both = [(fejes_toth_angle(k), math.degrees(math.acos(levenshtein_cosine(k, 3)))) for k in (13, 40)]
    assert [minimal_angle_bounds(k, 3).upper for k in (13, 40)] == [min(pair) for pair in both]
    assert both[1][0] < both[1][1]


def test_no_tabulated_code_beats_a_bound() -> None:
    for (num, dim), angle in BEST_KNOWN.items():
        bounds = minimal_angle_bounds(num, dim)
        assert bounds.lower == angle
        assert angle <= bounds.upper + 1e-6
        assert closed_form_angle(num, dim) is None
    assert minimal_angle_bounds(41, 9).lower is None
