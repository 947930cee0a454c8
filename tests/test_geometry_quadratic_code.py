"""Quadratic codes: their inner products against their bound."""

import pytest
import torch
from support.codes import products

from nc_tools.geometry import (
    quadratic_code,
)
from nc_tools.geometry.quadratic_code import quadratic_bound

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


def test_too_many_vectors_for_a_quadratic_code_raise() -> None:
    with pytest.raises(ValueError, match="at most 144 class vectors in 9 dimensions, got num_classes=145"):
        quadratic_code(145, 9)
    with pytest.raises(ValueError, match="use spherical_code"):
        quadratic_code(9, 3)
