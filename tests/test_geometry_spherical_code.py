"""Spherical codes: closed forms, the best known codes, the choice among constructions, minimal angles."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.codes import generator, products, random_code
from support.slow_cases import slow_except

from nc_tools.geometry import (
    code_angle,
    haar_frame,
    minimal_angle,
    minimal_angle_bounds,
    simplex_etf,
    spherical_code,
)
from nc_tools.geometry.known_codes import BEST_KNOWN
from nc_tools.geometry.quadratic_code import quadratic_bound
from nc_tools.geometry.spherical_code import SOLVER_LIMIT, _code, _solved


@given(st.integers(1, 12), st.data())
def test_up_to_d_plus_one_classes_the_code_is_the_simplex(dim: int, data: st.DataObject) -> None:
    num, seed = data.draw(st.integers(2, dim + 1)), data.draw(st.integers(0, 99))
    w = spherical_code(num, dim, generator=generator(seed))
    assert torch.equal(w, simplex_etf(num, dim, generator=generator(seed)))
    assert code_angle(num, dim) == pytest.approx(minimal_angle(w), abs=1e-5)


@given(st.integers(2, 12), st.data())
def test_up_to_2d_classes_no_two_rows_are_nearer_than_a_right_angle(dim: int, data: st.DataObject) -> None:
    num = data.draw(st.integers(dim + 2, 2 * dim))
    w = spherical_code(num, dim, generator=generator(data.draw(st.integers(0, 99))))
    assert torch.allclose(torch.linalg.vector_norm(w, dim=1), torch.ones(num, dtype=w.dtype))
    assert float(products(w).max()) == pytest.approx(0, abs=1e-12)
    assert torch.allclose(w.sum(0), torch.zeros(dim, dtype=w.dtype), atol=1e-12)
    assert int(torch.linalg.matrix_rank(w)) == dim
    assert code_angle(num, dim) == 90
    # Rows are as alike as K and D allow: the simplices' sizes differ by one at most.
    nearest = products(w).reshape(num, num - 1).amin(1)
    assert len({round(-1 / float(v)) for v in nearest}) <= 2


def test_2d_classes_are_the_orthoplex() -> None:
    w = spherical_code(8, 4)
    assert sorted(round(float(v), 9) + 0.0 for v in products(w)) == [-1.0] * 8 + [0.0] * 48


@pytest.mark.parametrize("num", [5, 7, 12])
def test_in_the_plane_the_code_is_the_regular_polygon(num: int) -> None:
    w = spherical_code(num, 2, generator=generator(1))
    assert minimal_angle(w) == pytest.approx(360 / num, abs=1e-9)
    assert minimal_angle_bounds(num, 2).lower == minimal_angle_bounds(num, 2).upper == pytest.approx(360 / num)


# test_geometry_code_bounds.py compares more codes of three dimensions with the best known, more closely.
SOLVED = [(8, 3), (12, 3), (10, 4), (24, 4), (16, 5), (27, 6), (56, 7)]


@pytest.mark.parametrize(("num", "dim"), slow_except(SOLVED, (8, 3), (12, 3)))
def test_codes_come_within_five_percent_of_the_best_known_and_do_not_beat_them(num: int, dim: int) -> None:
    angle, best = code_angle(num, dim), BEST_KNOWN[num, dim]
    assert 0.995 * best < angle < best + 1e-5
    w = spherical_code(num, dim, generator=generator(3))
    assert minimal_angle(w) == pytest.approx(angle, abs=1e-6)


@settings(deadline=None, max_examples=4)
@given(st.integers(3, 6), st.integers(0, 12))
@pytest.mark.slow
def test_codes_lie_between_random_ones_and_the_upper_bound(dim: int, more: int) -> None:
    num = 2 * dim + 1 + more
    w = spherical_code(num, dim, generator=generator(0))
    assert torch.allclose(torch.linalg.vector_norm(w, dim=1), torch.ones(num, dtype=w.dtype))
    best_random = max(minimal_angle(random_code(num, dim, seed)) for seed in range(5))
    assert best_random < minimal_angle(w) < minimal_angle_bounds(num, dim).upper + 1e-6


@pytest.mark.slow
def test_a_larger_code_is_far_apart_too() -> None:
    w = spherical_code(160, 8)
    assert minimal_angle(w) > 1.4 * max(minimal_angle(random_code(160, 8, seed)) for seed in range(5))
    assert minimal_angle(w) < minimal_angle_bounds(160, 8).upper


def test_draws_differ_by_a_rotation_and_are_solved_once() -> None:
    a = spherical_code(11, 3, generator=generator(0))
    misses = _solved.cache_info().misses
    b = spherical_code(11, 3, generator=generator(1))
    assert _solved.cache_info().misses == misses
    assert not torch.allclose(a, b, atol=0.1)
    assert torch.allclose(a @ a.T, b @ b.T, atol=1e-12)
    assert torch.equal(spherical_code(11, 3), spherical_code(11, 3))


def test_changing_a_returned_code_does_not_change_the_cached_one() -> None:
    spherical_code(11, 3).zero_()
    assert float(torch.linalg.vector_norm(spherical_code(11, 3)[0])) == pytest.approx(1)


@pytest.mark.slow
def test_the_better_of_a_quadratic_and_a_solved_code_is_used() -> None:
    assert code_angle(24, 4) == pytest.approx(60, abs=1e-6)
    assert code_angle(288, 16) == pytest.approx(math.degrees(math.acos(0.25)), abs=1e-6)
    # In 12 dimensions a quadratic code would use 8 of them.
    assert code_angle(60, 12) > math.degrees(math.acos(quadratic_bound(60, 12) or 1))


def test_larger_codes_are_quadratic_if_possible_and_random_otherwise() -> None:
    num = SOLVER_LIMIT + 1
    w = spherical_code(num, 100, generator=generator(0))
    assert w.shape == (num, 100)
    assert minimal_angle(w) == pytest.approx(code_angle(num, 100), abs=1e-5)
    assert code_angle(num, 100) > minimal_angle(random_code(num, 100)) + 15
    assert quadratic_bound(num, 9) is None
    random = spherical_code(num, 9, generator=generator(0))
    assert torch.allclose(torch.linalg.vector_norm(random, dim=1), torch.ones(num, dtype=w.dtype))
    assert minimal_angle(random) == pytest.approx(code_angle(num, 9), abs=1e-6)
    assert torch.equal(_code(num, 9), _code(num, 9))


def test_minimal_angle_against_scalar_loops() -> None:
    w = 3 * torch.randn(9, 4, generator=generator(5))
    by_hand = min(
        math.degrees(math.acos(float(u.double() @ v.double() / (u.double().norm() * v.double().norm()))))
        for u, v in combinations(w, 2)
    )
    assert minimal_angle(w) == pytest.approx(by_hand, abs=1e-5)


def test_minimal_angle_ignores_rotation_length_and_order() -> None:
    w = random_code(20, 5)
    turned = w @ haar_frame(5, 5, generator=generator(1)).T
    scaled = w[torch.randperm(20, generator=generator(2))] * torch.linspace(0.5, 3, 20, dtype=w.dtype)[:, None]
    assert minimal_angle(turned) == pytest.approx(minimal_angle(w), abs=1e-9)
    assert minimal_angle(scaled) == pytest.approx(minimal_angle(w), abs=1e-9)


def test_minimal_angle_of_some_rows_and_in_blocks() -> None:
    w = random_code(4000, 6)  # several blocks
    gram = w @ w.T
    gram.fill_diagonal_(-1)
    row, other = divmod(int(gram.argmax()), 4000)
    exact = math.degrees(math.acos(float(gram.max())))
    assert minimal_angle(w) == pytest.approx(exact, abs=1e-6)
    assert minimal_angle(w, rows=torch.tensor([other])) == pytest.approx(exact, abs=1e-6)
    rest = torch.tensor([i for i in range(4000) if i not in (row, other)])[:50]
    assert minimal_angle(w, rows=rest) > exact


def test_small_angles_keep_their_digits_and_equal_rows_have_none() -> None:
    w = torch.tensor([[1.0, 0.0], [1.0, 1e-5]], dtype=torch.float64)
    assert math.radians(minimal_angle(w)) == pytest.approx(1e-5, rel=1e-9)
    assert minimal_angle(w[[0, 0]]) == 0
    with pytest.raises(ValueError, match=r"at least 2 rows, got shape \(1, 2\)"):
        minimal_angle(w[:1])


@pytest.mark.parametrize("function", [spherical_code, code_angle, minimal_angle_bounds])
def test_impossible_sizes_raise(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="needs at least 2 classes, got 1"):
        function(1, 4)
    with pytest.raises(ValueError, match="of 3 classes needs feature_dim >= 2, got 1: on a line"):
        function(3, 1)
    with pytest.raises(ValueError, match="of 2 classes needs feature_dim >= 1, got 0"):
        function(2, 0)
    function(2, 1)
