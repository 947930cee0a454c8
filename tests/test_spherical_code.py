"""Spherical codes: closed forms, the solver against tables, quadratic codes against their bound, upper bounds."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.slow_cases import slow_except
from torch import Tensor

from nc_tools.geometry import (
    code_angle,
    haar_frame,
    minimal_angle,
    minimal_angle_bounds,
    quadratic_code,
    simplex_etf,
    spherical_code,
)
from nc_tools.geometry.code_bounds import closed_form_angle, fejes_toth_angle, levenshtein_cosine
from nc_tools.geometry.known_codes import BEST_KNOWN
from nc_tools.geometry.quadratic_code import quadratic_bound
from nc_tools.geometry.spherical_code import SOLVER_LIMIT, _code, _solved
from nc_tools.geometry.tammes import descend, energy, solve_tammes


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def products(w: Tensor) -> Tensor:
    gram = w @ w.T
    return gram[~torch.eye(len(w), dtype=torch.bool)]


def random_code(num: int, dim: int, seed: int = 0) -> Tensor:
    rows = torch.randn(num, dim, dtype=torch.float64, generator=generator(seed))
    return torch.nn.functional.normalize(rows, dim=1)


# Closed forms


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


# The solver


def energy_by_loops(points: list[list[float]], exponent: float) -> float:
    """(1/p) log sum_{i != j} (1 - w_i . w_j)^-p, in scalar Python."""
    unit = [[v / math.dist(p, [0] * len(p)) for v in p] for p in points]
    total = 0.0
    for i, u in enumerate(unit):
        for j, v in enumerate(unit):
            if i != j:
                total += (1 - sum(a * b for a, b in zip(u, v, strict=True))) ** -exponent
    return math.log(total) / exponent


@pytest.mark.parametrize("exponent", [1.0, 3.5, 40.0])
def test_energy_and_its_gradient_against_scalar_loops(exponent: float) -> None:
    points = 2 * torch.randn(2, 5, 3, dtype=torch.float64, generator=generator(0))
    value, gradient = energy(points, exponent)
    for b in range(2):
        assert float(value[b]) == pytest.approx(energy_by_loops(points[b].tolist(), exponent), rel=1e-12)
        for i in range(5):
            for d in range(3):
                step = torch.zeros(5, 3, dtype=torch.float64)
                step[i, d] = 1e-5
                up, down = (energy_by_loops((points[b] + s * step).tolist(), exponent) for s in (1, -1))
                assert float(gradient[b, i, d]) == pytest.approx((up - down) / 2e-5, abs=1e-6)


def test_descent_never_climbs_and_problems_of_a_batch_do_not_meet() -> None:
    points = torch.stack([random_code(9, 4, seed) for seed in range(3)])
    before = energy(points, 8.0)[0]
    after = energy(descend(points, 8.0, 30), 8.0)[0]
    assert bool((after < before).all())
    # Alone, the second takes the same way, but for what the others' stopping adds.
    alone = energy(descend(points[1:2], 8.0, 30), 8.0)[0]
    assert float(alone) == pytest.approx(float(after[1]), abs=1e-6)
    assert float(torch.linalg.vector_norm(energy(descend(points, 2.0, 400), 2.0)[1])) < 1e-4


SOLVED = [(7, 3), (8, 3), (9, 3), (10, 3), (12, 3), (13, 3), (24, 3), (10, 4), (24, 4), (16, 5), (27, 6), (56, 7)]


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
    w = spherical_code(320, 12)
    assert minimal_angle(w) > 1.4 * max(minimal_angle(random_code(320, 12, seed)) for seed in range(5))
    assert minimal_angle(w) < minimal_angle_bounds(320, 12).upper


@pytest.mark.slow
def test_a_code_is_the_same_whatever_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = solve_tammes(14, 4)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert torch.equal(solve_tammes(14, 4), two)
    finally:
        torch.set_num_threads(before)


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


# Quadratic codes

QUADRATIC = [
    (24, 4),
    (100, 8),
    (144, 8),
    (200, 16),
    (288, 16),
    (544, 16),
    (2112, 32),
    (3000, 32),
    (1500, 64),
    (900, 100),
]


@pytest.mark.parametrize(("num", "dim"), QUADRATIC)
def test_quadratic_codes_reach_their_bound(num: int, dim: int) -> None:
    w, bound = quadratic_code(num, dim), quadratic_bound(num, dim)
    assert w.shape == (num, dim)
    assert bound is not None
    assert torch.allclose(torch.linalg.vector_norm(w, dim=1), torch.ones(num, dtype=w.dtype))
    assert float(products(w).max()) == pytest.approx(bound, abs=1e-9)  # and reach it: it cannot be stated smaller
    assert torch.equal(quadratic_code(num, dim), w)


@pytest.mark.parametrize(("num", "dim", "bound"), [(4224, 64, 1 / 8), (4225, 64, 1 / 4), (50_000, 768, 1 / 16)])
def test_the_bound_is_the_formula(num: int, dim: int, bound: float) -> None:
    assert quadratic_bound(num, dim) == bound


def test_whole_bases_sum_to_zero_and_are_orthonormal() -> None:
    w = quadratic_code(544, 16)
    assert torch.allclose(w.sum(0), torch.zeros(16, dtype=w.dtype), atol=1e-12)
    for start in range(0, 544, 16):
        basis = w[start : start + 16]
        assert torch.allclose(basis @ basis.T, torch.eye(16, dtype=w.dtype), atol=1e-12)


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


# Measuring


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


# Bounds

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


# Bad input


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


def test_too_many_vectors_for_a_quadratic_code_raise() -> None:
    with pytest.raises(ValueError, match="at most 144 class vectors in 9 dimensions, got num_classes=145"):
        quadratic_code(145, 9)
    with pytest.raises(ValueError, match="use spherical_code"):
        quadratic_code(9, 3)
