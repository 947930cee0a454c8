"""Bounds on the minimal angle: sharp codes, closed forms and tables."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nc_tools.geometry import code_angle, minimal_angle_bounds
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


def roots(dim: int) -> np.ndarray:
    """The roots of D_n, the vectors +-e_i +-e_j (2 n (n - 1), n)."""
    pairs = itertools.combinations(range(dim), 2)
    signs = list(itertools.product((1.0, -1.0), repeat=2))
    return np.array([[a if k == i else b if k == j else 0.0 for k in range(dim)] for i, j in pairs for a, b in signs])


def roots_of_e8() -> np.ndarray:
    """The 240 roots of E8: those of D8, and (+-1/2, ..., +-1/2) with an even number of minus signs."""
    halves = np.array([x for x in itertools.product((0.5, -0.5), repeat=8) if sum(v < 0 for v in x) % 2 == 0])
    return np.concatenate([roots(8), halves])


def orthogonal(code: np.ndarray, *vectors: np.ndarray) -> np.ndarray:
    return code[(np.abs(code @ np.array(vectors).T) < 1e-9).all(1)]


def derived(code: np.ndarray) -> np.ndarray:
    """The nearest neighbors of a point, in the space orthogonal to it."""
    products = code @ code[0]
    near = code[np.isclose(products, np.sort(products)[-1 - int((products == products.max()).sum())])]
    return near - np.outer(near @ code[0], code[0])


def angle_and_size(code: np.ndarray) -> tuple[float, tuple[int, int]]:
    unit = code / np.linalg.norm(code, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(len(unit))
    return math.degrees(math.acos(cosines.max())), (len(unit), int(np.linalg.matrix_rank(unit)))


def test_codes_of_root_systems_have_the_tabulated_angles() -> None:
    e8 = roots_of_e8() / math.sqrt(2)
    second = e8[np.isclose(e8 @ e8[0], -0.5)][0]  # spans A2 with the first
    codes = [roots(4), roots(5), orthogonal(e8, e8[0], second), orthogonal(e8, e8[0]), e8]
    code = e8
    for _ in range(4):  # 56 in 7 dimensions, 27 in 6, 16 in 5 and 10 in 4
        code = derived(code)
        code = code / np.linalg.norm(code, axis=1, keepdims=True)
        codes.append(code)
    sizes = []
    for code in codes:
        angle, size = angle_and_size(code)
        sizes.append(size)
        assert BEST_KNOWN[size] == pytest.approx(angle, abs=1e-6)
    assert sizes == [(24, 4), (40, 5), (72, 6), (126, 7), (240, 8), (56, 7), (27, 6), (16, 5), (10, 4)]


@pytest.mark.slow
def test_the_solver_comes_near_the_table_of_the_sphere_and_never_beats_it() -> None:
    sizes = sorted(num for num, dim in BEST_KNOWN if dim == 3)
    assert sizes == list(range(7, 41))
    ratios = {num: code_angle(num, 3) / BEST_KNOWN[num, 3] for num in sizes[::5]}
    assert all(0.999 < ratio < 1 + 1e-7 for ratio in ratios.values()), ratios


def test_no_tabulated_code_beats_a_bound() -> None:
    for (num, dim), angle in BEST_KNOWN.items():
        bounds = minimal_angle_bounds(num, dim)
        assert bounds.lower == angle
        assert angle <= bounds.upper + 1e-6
        assert closed_form_angle(num, dim) is None
    assert minimal_angle_bounds(41, 9).lower is None
