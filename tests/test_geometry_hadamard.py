"""Hadamard matrices, their transform, and the random frames made of them."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.geometry import hadamard, walsh_hadamard
from nc_tools.geometry.hadamard import FACTOR, power_of_two
from nc_tools.geometry.random_hadamard import (
    draw_signed_permutation,
    hadamard_etf,
    inverse,
    lift,
    permute_centered,
    project,
)


def draw(dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_signed_permutation(dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("order", [1, 2, 4, 64, 256])
def test_hadamard_entries_are_signs_by_shared_digits(order: int) -> None:
    h = hadamard(order)
    assert torch.equal(h @ h.T, order * torch.eye(order).double())
    for i, j in itertools.product(range(min(order, 16)), repeat=2):
        assert float(h[i, j]) == (-1) ** bin(i & j).count("1")


@pytest.mark.parametrize("order", [1, 2, 32, 64, 128, 2048, pytest.param(8192, marks=pytest.mark.slow)])
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
    order, signs = draw(dim, seed)
    p = project(torch.eye(dim).double(), columns, order, signs, hadamard(FACTOR))
    assert p.shape == (dim, columns)
    assert float((p.T @ p - torch.eye(columns)).abs().max()) < 1e-12
    assert float((p != 0).double().mean()) > 0.45  # every class vector lies on half of the coordinates at least
    y = torch.randn(2, 3, columns, dtype=torch.float64)
    lifted = lift(y, order, signs, hadamard(FACTOR))
    assert torch.allclose(lifted, y @ p.T, atol=1e-12)
    assert torch.allclose(project(lifted, columns, order, signs, hadamard(FACTOR)), y, atol=1e-12)


@pytest.mark.parametrize(("columns", "dim"), [(4, 10), (6, 6), (5, 8)])
def test_projecting_and_lifting_are_each_others_derivatives(columns: int, dim: int) -> None:
    (order, signs), factor = draw(dim), hadamard(FACTOR)
    x, y = (torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (dim, columns))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda v: project(v, columns, order, signs, factor) ** 2, x)
        assert check(lambda v: lift(v, order, signs, factor) ** 2, y)


@given(columns_and_width(), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_hadamard_etf_has_the_gram_of_a_simplex(size: tuple[int, int], seed: int) -> None:
    classes, dim = size
    w = hadamard_etf(classes, *draw(dim, seed))
    expected = (classes * torch.eye(classes, dtype=w.dtype) - 1) / (classes - 1)
    assert float((w @ w.T - expected).abs().max()) < 1e-12


def test_every_coordinate_counts_as_much_as_the_others_where_the_buckets_are_equal() -> None:
    p = project(torch.eye(96).double(), 20, *draw(96), hadamard(FACTOR))
    assert torch.allclose(p.abs(), torch.full_like(p, 96**-0.5), atol=1e-14)


def test_signs_and_order_of_random_hadamard_frames_are_fair() -> None:
    """A column's sum over D coordinates of size 1 / sqrt(D) and random sign has mean 0 and variance 1."""
    sums = torch.stack([project(torch.ones(1, 32).double(), 4, *draw(32, s), hadamard(FACTOR))[0] for s in range(800)])
    assert float(sums.mean(0).abs().max()) < 4 / math.sqrt(800)
    assert float((sums.var(0) - 1).abs().max()) < 4 * math.sqrt(2 / 800)
    orders = torch.stack([draw(32, s)[0] for s in range(800)])
    assert float((orders.double().mean(0) - 15.5).abs().max()) < 5 * math.sqrt((32**2 - 1) / 12 / 800)


def test_permute_centered_and_its_derivatives() -> None:
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(permute_centered(x, order), x[:, order] - x.mean(1, keepdim=True), atol=1e-15)
    assert torch.equal(inverse(order), order.argsort())
    assert torch.autograd.gradcheck(lambda v: permute_centered(v, order), x)
    assert torch.autograd.gradgradcheck(lambda v: permute_centered(v, order) ** 2, x)
    wide = torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
    assert torch.equal(permute_centered(wide, order), permute_centered(wide[:, :6], order))
    assert torch.autograd.gradcheck(lambda v: permute_centered(v, order), wide)
    assert torch.autograd.gradgradcheck(lambda v: permute_centered(v, order) ** 2, wide)
    first = torch.func.grad(lambda row: (permute_centered(row, order)[0] * 3).sum())
    expected = 3 * torch.nn.functional.one_hot(order[0], 6).double() - 0.5
    assert torch.allclose(torch.func.vmap(first)(x.detach()), expected.expand(3, 6), atol=1e-15)


@given(st.integers(1, 5000))
def test_power_of_two_is_the_smallest_that_is_large_enough(number: int) -> None:
    power = power_of_two(number)
    assert power >= number > power // 2
    assert bin(power).count("1") == 1


def test_bad_input_raises_and_suggests_a_fix() -> None:
    with pytest.raises(ValueError, match="order of a Hadamard matrix must be a power of two, got 12: use order 16"):
        hadamard(12)
    with pytest.raises(ValueError, match="power of two"):
        walsh_hadamard(torch.zeros(2, 6), hadamard(FACTOR))
    with pytest.raises(
        ValueError, match=r"10 classes needs feature_dim >= 10, got 9.*projection=10.*SphericalCodeHead"
    ):
        hadamard_etf(10, *draw(9))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        hadamard_etf(1, *draw(9))
