"""Polytopes, Hadamard transforms, random Hadamard frames and vertex assignment: definitions and properties."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.geometry import (
    assign_by_means,
    assign_by_similarity,
    cube,
    haar_frame,
    hadamard,
    orthoplex,
    simplex_etf,
    walsh_hadamard,
)
from nc_tools.geometry.hadamard import FACTOR, power_of_two
from nc_tools.geometry.random_hadamard import draw_signed_permutation, hadamard_etf, inverse, lift, permute, project

few_or_many = st.integers(2, 70)


def drawn(dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_signed_permutation(dim, generator=torch.Generator().manual_seed(seed))


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


@pytest.mark.parametrize("order", [1, 2, 4, 64, 256])
def test_hadamard_entries_are_signs_by_shared_digits(order: int) -> None:
    h = hadamard(order)
    assert torch.equal(h @ h.T, order * torch.eye(order).double())
    for i, j in itertools.product(range(min(order, 16)), repeat=2):
        assert float(h[i, j]) == (-1) ** bin(i & j).count("1")


@pytest.mark.parametrize("order", [1, 2, 32, 64, 128, 2048, 8192])
def test_transform_is_the_product_with_the_matrix(order: int) -> None:
    x = torch.randn(2, 3, order, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factor = hadamard(FACTOR)
    assert torch.allclose(walsh_hadamard(x, factor), x @ hadamard(order) / math.sqrt(order), atol=1e-12)
    assert torch.allclose(walsh_hadamard(walsh_hadamard(x, factor), factor), x, atol=1e-12)


@st.composite
def columns_and_width(draw: st.DrawFn) -> tuple[int, int]:
    columns = draw(st.integers(2, 40))
    return columns, draw(st.integers(columns, 150))


@given(columns_and_width(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_random_hadamard_frames_are_orthonormal_for_every_size(size: tuple[int, int], seed: int) -> None:
    columns, dim = size
    order, signs = drawn(dim, seed)
    p = project(torch.eye(dim).double(), columns, order, signs, hadamard(FACTOR))
    assert p.shape == (dim, columns)
    assert float((p.T @ p - torch.eye(columns)).abs().max()) < 1e-12
    assert float((p != 0).double().mean()) > 0.45  # every class vector lies on half of the coordinates at least
    y = torch.randn(3, columns, dtype=torch.float64)
    assert torch.allclose(lift(y, order, signs, hadamard(FACTOR)), y @ p.T, atol=1e-12)


@pytest.mark.parametrize(("columns", "dim"), [(4, 10), (6, 6), (5, 8)])
def test_projecting_and_lifting_are_each_others_derivatives(columns: int, dim: int) -> None:
    (order, signs), factor = drawn(dim), hadamard(FACTOR)
    x, y = (torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (dim, columns))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda given: project(given, columns, order, signs, factor) ** 2, x)
        assert check(lambda given: lift(given, order, signs, factor) ** 2, y)


@given(columns_and_width(), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_hadamard_etf_has_the_gram_of_a_simplex(size: tuple[int, int], seed: int) -> None:
    classes, dim = size
    w = hadamard_etf(classes, *drawn(dim, seed))
    expected = (classes * torch.eye(classes, dtype=w.dtype) - 1) / (classes - 1)
    assert float((w @ w.T - expected).abs().max()) < 1e-12


def test_every_coordinate_counts_as_much_as_the_others_where_the_buckets_are_equal() -> None:
    p = project(torch.eye(96).double(), 20, *drawn(96), hadamard(FACTOR))
    assert torch.allclose(p.abs(), torch.full_like(p, 96**-0.5), atol=1e-14)


def test_signs_and_order_of_random_hadamard_frames_are_fair() -> None:
    """A column's sum over D coordinates of size 1 / sqrt(D) and random sign has mean 0 and variance 1."""
    sums = torch.stack([project(torch.ones(1, 32).double(), 4, *drawn(32, s), hadamard(FACTOR))[0] for s in range(800)])
    assert float(sums.mean(0).abs().max()) < 4 / math.sqrt(800)
    assert float((sums.var(0) - 1).abs().max()) < 4 * math.sqrt(2 / 800)
    orders = torch.stack([drawn(32, s)[0] for s in range(800)])
    assert float((orders.double().mean(0) - 15.5).abs().max()) < 5 * math.sqrt((32**2 - 1) / 12 / 800)


def test_permute_and_its_derivatives() -> None:
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.equal(permute(x, order), x[:, order])
    assert torch.equal(inverse(order), order.argsort())
    assert torch.autograd.gradcheck(lambda given: permute(given, order), x)
    assert torch.autograd.gradgradcheck(lambda given: permute(given, order) ** 2, x)
    by_row = torch.func.vmap(lambda row: torch.func.grad(lambda r: (permute(r, order)[0] * 3).sum())(row))(x.detach())
    assert torch.equal(by_row, 3 * torch.nn.functional.one_hot(order[0], 6).double().expand(3, 6))


@pytest.mark.parametrize(("dim", "columns"), [(1, 1), (4, 4), (60, 59), (300, 120)])
def test_haar_frames_are_orthonormal_to_rounding_at_every_shape(dim: int, columns: int) -> None:
    q = haar_frame(dim, columns, generator=torch.Generator().manual_seed(7))
    assert float((q.T @ q - torch.eye(columns)).abs().max()) < 1e-13


def test_a_haar_frame_that_starts_near_its_axis_is_as_exact() -> None:
    """Of 3000 directions in the plane some lie within a thousandth of the axis, where a reflector could cancel."""
    generator = torch.Generator().manual_seed(5)
    q = torch.stack([haar_frame(2, 2, generator=generator) for _ in range(3000)])
    assert float(q[:, 1, 0].abs().min()) < 1e-3
    assert float((q.mT @ q - torch.eye(2)).abs().max()) < 1e-14


def test_haar_frame_is_the_q_of_a_gaussian_matrix_in_distribution() -> None:
    """Entry (i, j) has variance 1 / D and kurtosis 3 D / (D + 2); entries of two columns are uncorrelated."""
    dim, generator = 5, torch.Generator().manual_seed(11)
    q = torch.stack([haar_frame(dim, 4, generator=generator) for _ in range(4000)])
    assert float(q.mean(0).abs().max()) < 4.5 * math.sqrt(1 / dim / 4000)
    assert float((q.square().mean(0) * dim - 1).abs().max()) < 0.12
    assert float((q**4).mean() * dim**2) == pytest.approx(3 * dim / (dim + 2), rel=0.03)
    assert float((q[:, :, 0] * q[:, :, 3]).mean(0).abs().max()) < 4.5 / dim / math.sqrt(4000)


@pytest.mark.parametrize("seed", range(6))
def test_means_get_the_vertices_that_agree_most_with_them(seed: int) -> None:
    """By direction about the overall mean: means are of unequal length and far from the origin."""
    frame = simplex_etf(6, 8, generator=torch.Generator().manual_seed(0))
    means = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    means = means * torch.tensor([0.1, 0.3, 1, 3, 10, 30])[:, None] + 5
    centered = [[v - sum(column) / 6 for v, column in zip(row, zip(*means.tolist(), strict=True), strict=True)]
               for row in means.tolist()]  # fmt: skip

    def total(order: tuple[int, ...]) -> float:
        found = 0.0
        for row, vertex in zip(centered, order, strict=True):
            dot = sum(a * b for a, b in zip(row, frame[vertex].tolist(), strict=True))
            found += dot / math.sqrt(sum(a * a for a in row))
        return found

    best = max(itertools.permutations(range(6)), key=total)
    assert tuple(assign_by_means(frame, means).tolist()) == best


def test_similar_classes_get_near_vertices() -> None:
    """Against all 720 orders, and against a planted one."""
    frame = cube(6)
    similarity = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)).double()
    gram = frame @ frame.T

    def total(order: tuple[int, ...]) -> float:
        return sum(float((similarity[i, j] + similarity[j, i]) / 2 * gram[order[i], order[j]])
                   for i in range(6) for j in range(6) if i != j)  # fmt: skip

    best = max(map(total, itertools.permutations(range(6))))
    assert total(tuple(assign_by_similarity(frame, similarity).tolist())) == pytest.approx(best, abs=1e-9)
    planted = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    whole = cube(16) @ cube(16).T
    found = assign_by_similarity(cube(16), whole[planted][:, planted])
    assert torch.allclose(whole[found][:, found], whole[planted][:, planted])


def test_no_exchange_of_two_classes_is_left_that_gains() -> None:
    frame = torch.nn.functional.normalize(
        torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), dim=1
    ).double()
    similarity = torch.randn(30, 30, generator=torch.Generator().manual_seed(1)).double()
    gram, alike = (frame @ frame.T).numpy(), ((similarity + similarity.T) / 2).numpy()
    off = ~np.eye(30, dtype=bool)
    order = assign_by_similarity(frame, similarity).numpy()
    reached = (alike * gram[np.ix_(order, order)])[off].sum()
    for i, j in itertools.combinations(range(30), 2):
        other = order.copy()
        other[[i, j]] = other[[j, i]]
        assert (alike * gram[np.ix_(other, other)])[off].sum() <= reached + 1e-9


def test_bad_input_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match="power of two as its order, got 12: take 16"):
        hadamard(12)
    with pytest.raises(ValueError, match="power of two"):
        walsh_hadamard(torch.zeros(2, 6), hadamard(FACTOR))
    for polytope in (orthoplex, cube):
        with pytest.raises(ValueError, match="at least 2 classes, got 1"):
            polytope(1)
    with pytest.raises(ValueError, match=r"10 classes needs feature_dim >= 10, got 9.*projection=10.*CodeHead"):
        hadamard_etf(10, *drawn(9))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        hadamard_etf(1, *drawn(9))
    etf = simplex_etf(4, 4)
    with pytest.raises(ValueError, match="all vertices of this frame are equally far apart"):
        assign_by_similarity(etf, torch.eye(4))
    with pytest.raises(ValueError, match=r"similarity must be \(4, 4\), one row a class, got \(3, 4\)"):
        assign_by_similarity(etf, torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"means must have the frame's shape \(4, 4\), got \(4, 5\)"):
        assign_by_means(etf, torch.zeros(4, 5))
    with pytest.raises(ValueError, match="means must be finite"):
        assign_by_means(etf, torch.full((4, 4), torch.nan))


@given(st.integers(1, 5000))
def test_power_of_two_is_the_smallest_that_is_not_below(number: int) -> None:
    found = power_of_two(number)
    assert found >= number > found // 2
    assert bin(found).count("1") == 1
