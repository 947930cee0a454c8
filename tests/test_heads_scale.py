"""The scale of logits: its default, learned scales and invalid values."""

import math

import pytest
import torch
from support.head_variants import D, K, features
from torch import Tensor

from nc_tools.heads import (
    LEARNED,
    LEARNED_PER_CLASS,
    ETFHead,
    Head,
    LearnedScale,
    default_scale,
)


@pytest.mark.parametrize(("classes", "scale"), [(10, 8.2), (100, 11.4), (1000, 13.8)])
def test_default_scale_gives_the_documented_confidence(classes: int, scale: float) -> None:
    assert default_scale(classes) == pytest.approx(scale, abs=0.05)
    head = ETFHead(classes, classes)
    aligned = head(head.weight[:1])
    assert float(aligned.softmax(1)[0, 0]) == pytest.approx(0.999, abs=1e-5)


def value_of(head: Head) -> float:
    assert isinstance(head.scale, Tensor)
    return float(head.scale.detach())


def test_learned_scale_has_its_initial_value_and_stays_positive() -> None:
    head = ETFHead(D, K, scale=LearnedScale(3.0))
    assert value_of(head) == pytest.approx(3.0, abs=1e-6)
    assert value_of(ETFHead(D, K, scale=LEARNED)) == pytest.approx(default_scale(K), abs=1e-5)
    with torch.no_grad():
        head.scale_of.raw.fill_(-50.0)
    assert value_of(head) > 0
    assert head.scale_of.raw.shape == (1,)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_invalid_scales_raise(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        ETFHead(D, K, scale=scale)


def test_scales_per_class_have_their_initial_value_and_differ_later() -> None:
    head = ETFHead(D, K, scale=LEARNED_PER_CLASS)
    assert isinstance(head.scale, Tensor)
    assert head.scale.shape == (K,)
    assert torch.allclose(head.scale, torch.full((K,), default_scale(K)), atol=1e-5)
    assert head.scale_of.raw.ndim == 1  # what has one dimension is not decayed by default
    assert "learned per class" in repr(head)
    with torch.no_grad():
        head.scale_of.raw.copy_(torch.arange(K) + 1.0)
    scales = [math.log1p(math.exp(k + 1)) for k in range(K)]
    expected = head.embed(features(5)) @ head.weight.T * torch.tensor(scales)
    assert torch.allclose(head(features(5)), expected, atol=1e-5)
    started = ETFHead(D, K, scale=LearnedScale(4.0, per_class=True)).scale
    assert isinstance(started, Tensor)
    assert torch.allclose(started, torch.full((K,), 4.0))
