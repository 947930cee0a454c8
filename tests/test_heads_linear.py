"""Linear and cosine heads against nn.Linear and scalar loops."""

import math

import pytest
import torch
from support.head_variants import D, K, N, features
from torch import nn

from nc_tools.heads import (
    CosineHead,
    LinearHead,
)


def test_linear_head_is_nn_linear_in_both_directions() -> None:
    linear, head = nn.Linear(D, K), LinearHead(D, K)
    head.load_state_dict(linear.state_dict())
    assert torch.equal(head(features()), linear(features()))
    linear.load_state_dict(LinearHead(D, K).state_dict())
    torch.manual_seed(3)
    reference = nn.Linear(D, K)
    drawn = LinearHead(D, K, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn.weight, reference.weight)
    assert torch.equal(drawn.bias, reference.bias)  # type: ignore[arg-type]


def test_cosine_logits_are_scaled_cosines() -> None:
    head, h = CosineHead(D, K, scale=3.0), features()
    for n in range(N):
        for k in range(K):
            w = head.direction[k].tolist()
            dot = sum(a * b for a, b in zip(h[n].tolist(), w, strict=True))
            norm = math.dist(h[n].tolist(), [0] * D) * math.dist(w, [0] * D)
            assert float(head(h)[n, k].detach()) == pytest.approx(3.0 * dot / norm, abs=1e-5)
