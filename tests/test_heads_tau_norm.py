"""Norms of class vectors to a power."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.unequal_classes import D, K, seeded
from torch import nn

from nc_tools.heads import (
    CosineHead,
    LinearHead,
    tau_normalize,
)


@given(tau=st.floats(0, 2), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_norms_become_their_power_and_directions_stay(tau: float, seed: int) -> None:
    weight = torch.randn(K, D, generator=seeded(seed), dtype=torch.float64)
    got = tau_normalize(weight, tau)
    for k in range(K):
        row = weight[k].tolist()
        norm = math.sqrt(sum(v * v for v in row))
        assert got[k].tolist() == pytest.approx([v / norm**tau for v in row], rel=1e-12)


def test_a_head_comes_back_without_its_bias_and_is_left_as_it_was() -> None:
    for trained in (LinearHead(D, K), nn.Linear(D, K)):
        before = copy.deepcopy(trained.state_dict())
        head = tau_normalize(trained.eval(), 1.0)
        assert isinstance(head, LinearHead)
        assert head.bias is None
        assert not head.training
        assert torch.allclose(head.weight.norm(dim=1), torch.ones(K))
        assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())


def test_rows_of_zeros_half_precision_and_bad_arguments() -> None:
    weight = torch.randn(K, D)
    weight[1] = 0
    assert not tau_normalize(weight, 1.0)[1].any()
    half = tau_normalize(weight.half(), 1.0)
    assert half.dtype == torch.float16
    assert torch.isfinite(half).all()
    for tau in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="tau must be at least 0 and finite"):
            tau_normalize(weight, tau)
    with pytest.raises(TypeError, match=r"LinearHead, an nn\.Linear or a weight \(K, D\), got CosineHead"):
        tau_normalize(CosineHead(D, K), 1.0)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"shape \(K, D\), got \(12,\)"):
        tau_normalize(weight[0], 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_norms_are_taken_where_the_head_is() -> None:
    assert tau_normalize(LinearHead(D, K).cuda(), 1.0).weight.is_cuda
