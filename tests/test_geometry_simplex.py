"""Simplex ETFs: the Gram matrix, the papers' forms and impossible sizes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.geometry import centered_basis, haar_frame, simplex_etf


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    classes = draw(st.integers(2, 40))
    return classes, draw(st.integers(classes - 1, 80))


@given(sizes(), st.integers(0, 2**31), st.booleans())
@settings(max_examples=80, deadline=None)
def test_gram_is_exact_for_every_size_that_exists(size: tuple[int, int], seed: int, rotated: bool) -> None:
    classes, dim = size
    generator = torch.Generator().manual_seed(seed) if rotated else None
    gram = simplex_etf(classes, dim, generator=generator)
    gram = gram @ gram.T
    for i in range(classes):
        for j in range(classes):
            expected = 1.0 if i == j else -1.0 / (classes - 1)
            assert abs(float(gram[i, j]) - expected) < 1e-12


@pytest.mark.parametrize("classes", [2, 3, 10, 100, pytest.param(1000, marks=pytest.mark.slow)])
def test_large_frames_stay_exact_at_both_ends_of_the_width(classes: int) -> None:
    for dim in (classes - 1, classes, 2 * classes):
        w = simplex_etf(classes, dim, generator=torch.Generator().manual_seed(classes))
        expected = (classes * torch.eye(classes, dtype=w.dtype) - 1) / (classes - 1)
        assert float((w @ w.T - expected).abs().max()) < 1e-12


def test_simplex_equals_the_centered_form_of_the_papers_up_to_a_rotation() -> None:
    classes, dim = 7, 20
    p = haar_frame(dim, classes, generator=torch.Generator().manual_seed(1))
    paper = math.sqrt(classes / (classes - 1)) * (torch.eye(classes).double() - 1 / classes) @ p.T
    ours = simplex_etf(classes, dim)
    u, _, v = torch.linalg.svd(ours.T @ paper)
    assert torch.allclose(ours @ (u @ v), paper, atol=1e-12)


def test_rows_sum_to_zero() -> None:
    assert float(simplex_etf(10, 64, generator=torch.Generator().manual_seed(0)).sum(0).abs().max()) < 1e-12


@pytest.mark.parametrize("classes", [2, 5, 17])
def test_centered_basis_is_the_projector_onto_zero_sums(classes: int) -> None:
    b = centered_basis(classes)
    assert torch.allclose(b.T @ b, torch.eye(classes - 1).double(), atol=1e-13)
    assert torch.allclose(b @ b.T, torch.eye(classes).double() - 1 / classes, atol=1e-13)


def test_same_generator_state_gives_the_same_frame() -> None:
    a, b = (simplex_etf(5, 9, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.allclose(a, simplex_etf(5, 9, generator=torch.Generator().manual_seed(5)))


def test_impossible_sizes_raise_and_suggest_a_fix() -> None:
    with pytest.raises(ValueError, match=r"10 classes needs feature_dim >= 9, got 8.*projection=9"):
        simplex_etf(10, 8)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        simplex_etf(1, 8)
