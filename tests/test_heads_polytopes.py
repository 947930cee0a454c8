"""Polytope heads: their widths, their papers' forms, damaged checkpoints."""

import math

import pytest
import torch
from support.head_variants import D, K, features
from torch import Tensor, nn

from nc_tools.heads import (
    CubeHead,
    FixedHead,
    HadamardHead,
    OrthoplexHead,
    SimplexHead,
)

POLYTOPES = (SimplexHead, OrthoplexHead, CubeHead, HadamardHead)
WIDTHS = {SimplexHead: 6, OrthoplexHead: 4, CubeHead: 3, HadamardHead: 8}


def gram(head: FixedHead) -> Tensor:
    w = head.weight.double()
    return w @ w.T


@pytest.mark.parametrize("cls", POLYTOPES)
def test_polytopes_project_to_their_own_width(cls: type[SimplexHead]) -> None:
    head = cls(D, K)
    assert head.weight.shape == (K, WIDTHS[cls])
    assert head.projection is not None
    assert head.projection.weight.shape == (WIDTHS[cls], D)
    assert torch.allclose(head.weight.norm(dim=1), torch.ones(K))


@pytest.mark.parametrize("cls", POLYTOPES)
def test_without_a_projection_the_polytope_is_rotated_and_otherwise_the_same(cls: type[SimplexHead]) -> None:
    straight = cls(WIDTHS[cls], K, projection=False)
    assert straight.projection is None
    assert torch.allclose(gram(straight), gram(cls(D, K)), atol=1e-6)
    assert not torch.allclose(straight.weight, cls(D, K).weight, atol=0.1)
    again, other = (cls(WIDTHS[cls], K, projection=False, frame_seed=seed) for seed in (0, 1))
    assert torch.equal(again.weight, straight.weight)
    assert not torch.allclose(other.weight, straight.weight, atol=0.1)
    straight.load_state_dict(other.state_dict())  # a rotation is not damage


@pytest.mark.parametrize("cls", POLYTOPES)
def test_a_damaged_polytope_raises(cls: type[SimplexHead]) -> None:
    head = cls(D, K)
    damaged = head.frame.clone()
    damaged[2] = damaged[3]
    with pytest.raises(RuntimeError, match=f"must be a {head.geometry} frame, but the checkpoint's is off by"):
        head.load_state_dict({**head.state_dict(), "frame": damaged}, strict=False)
    assert head.frame_error(head.frame) < 1e-4
    with pytest.raises(RuntimeError, match=f"fixed {head.geometry} frame, but the checkpoint has a learned weight"):
        head.load_state_dict(nn.Linear(D, K).state_dict(), strict=False)


@pytest.mark.parametrize("cls", POLYTOPES)
def test_widths_that_do_not_fit_raise_and_suggest_a_fix(cls: type[SimplexHead]) -> None:
    with pytest.raises(
        ValueError, match=rf"{cls.__name__} of {K} classes .*got {D}: use projection=True .*SphericalCodeHead"
    ):
        cls(D, K, projection=False)


def test_hadamard_rows_may_be_longer_than_needed() -> None:
    long = HadamardHead(D, K, projection=64)
    assert long.weight.shape == (K, 64)
    assert torch.allclose(gram(long), torch.eye(K).double(), atol=1e-6)
    assert HadamardHead(32, K, projection=False).weight.shape == (K, 32)
    with pytest.raises(ValueError, match="power of two and at least 7, got 4"):
        HadamardHead(D, K, projection=4)


def test_under_a_softmax_the_hadamard_head_is_an_etf() -> None:
    head = HadamardHead(D, K, scale=5.0)
    u = head.embed(features(5))
    w = head.weight - head.weight.mean(0)
    w = w / w.norm(dim=1, keepdim=True)
    assert torch.allclose(w @ w.T, (K * torch.eye(K) - 1) / (K - 1), atol=1e-6)
    same = 5.0 * math.sqrt((K - 1) / K) * u @ w.T
    assert torch.allclose(head(features(5)).softmax(1), same.softmax(1), atol=1e-6)


def test_minimal_simplex_is_the_recursion_of_the_paper_up_to_an_orthogonal_map() -> None:
    """P_1 = [1, -1]; P_k = [[1, -1/k ...], [0, sqrt(1 - 1/k^2) P_{k-1}]]."""
    columns = [[1.0, -1.0]]
    for k in range(2, K):
        shrink = math.sqrt(1 - 1 / k**2)
        columns = [[1.0] + [-1 / k] * k, *([0.0] + [shrink * v for v in row] for row in columns)]
    paper = torch.tensor(columns, dtype=torch.float64).T
    assert paper.shape == (K, K - 1)
    assert torch.allclose(paper @ paper.T, gram(SimplexHead(D, K)), atol=1e-6)


def test_radius_is_the_papers_form() -> None:
    head, h = SimplexHead(D, K, radius=0.1), features(5)
    assert head.projection is not None
    expected = 0.1 * (h @ head.projection.weight.T) @ head.weight.T
    assert torch.allclose(head(h), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"only one of radius and scale, got radius=0\.1 and scale=3\.0"):
        SimplexHead(D, K, radius=0.1, scale=3.0)
    with pytest.raises(ValueError, match="scale must be positive and finite, got -1"):
        SimplexHead(D, K, radius=-1.0)


@pytest.mark.parametrize("cls", [SimplexHead, OrthoplexHead, CubeHead])
def test_two_classes_on_a_line_have_no_gradient_and_raise(cls: type[SimplexHead]) -> None:
    with pytest.raises(ValueError, match="width 1, which would keep only their sign and have no gradient"):
        cls(D, 2)
    assert cls(D, 2, normalize=False)(features(5)).shape == (5, 2)


def test_simplex_of_thousands_of_classes() -> None:
    head = SimplexHead(8, 2000)
    assert head.frame_error(head.frame) < 1e-4
