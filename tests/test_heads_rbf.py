"""The radial-basis head against its definition, with and without the background."""

import math

import pytest
import torch
from support.feature_rows import D, K, N, features
from torch import nn
from torch.nn.functional import cross_entropy

from nc_tools.heads import RBFHead
from nc_tools.losses import BackgroundCrossEntropyLoss
from nc_tools.records import Batch


def rbf(h, head):
    """Probabilities of classes and background, from the definition."""
    bumps = [math.exp(-head.gamma * sum((a - head.radius * m) ** 2 for a, m in zip(h, row, strict=True)))
             for row in head.frame.tolist()]  # fmt: skip
    total = sum(bumps) + math.exp(head.background)
    return [b / total for b in bumps] + [math.exp(head.background) / total]


@pytest.mark.parametrize("options", [{}, {"gamma": 0.3, "radius": 2.0, "background": -1.5}])
def test_softmax_with_the_background_is_the_definition(options):
    head, h = RBFHead(D, K, **options), features()
    p = head.with_background(head(h)).softmax(1)
    for n in range(N):
        assert p[n].tolist() == pytest.approx(rbf(h[n].tolist(), head), abs=1e-5)
    assert torch.allclose(head(h).sigmoid(), p[:, :-1] / (p[:, :-1] + p[:, -1:]), atol=1e-6)


def test_without_the_background_it_is_a_linear_head():
    """2 gamma r m_k . h: the same softmax, loss and gradient."""
    head, h = RBFHead(D, K, gamma=0.3, radius=2.0), features()
    linear = nn.Linear(D, K, bias=False)
    linear.weight = nn.Parameter(2 * 0.3 * 2.0 * head.frame)
    labels, gradients = torch.arange(N) % K, []
    assert torch.allclose(head(h).softmax(1), linear(h).softmax(1), atol=1e-6)
    for scores in (head, linear):
        leaf = h.clone().requires_grad_()
        cross_entropy(scores(leaf), labels).backward()
        gradients.append(leaf.grad)
    assert torch.allclose(*gradients, atol=1e-6)
    assert float(head.scale) == pytest.approx(1.2)
    assert float(linear(100 * head.frame).detach().softmax(1).max()) > 0.999


@pytest.mark.parametrize("options", [{}, {"gamma": 0.3, "radius": 2.0, "background": -1.5}])
def test_every_class_is_bounded_far_from_the_centers(options):
    head = RBFHead(D, K, **options)
    directions = nn.functional.normalize(torch.cat([head.frame, -head.frame, features(50)]))
    for length in (1.5, 3.0, 10.0, 1000.0):
        h = length * head.radius * directions
        p = head.with_background(head(h)).softmax(1)
        bound = math.exp(-head.gamma * (length * head.radius - head.radius) ** 2 - head.background)
        assert float(p[:, :-1].max()) <= bound * (1 + 1e-3) + 1e-12
        if length >= 3.0:
            assert bool((p[:, -1] > 0.5).all())
    assert float(p[:, -1].min()) == 1.0


def test_rbf_defaults_are_confident_at_a_center_and_uniform_at_the_origin():
    head = RBFHead(D, K)
    assert head.radius == pytest.approx(math.sqrt(D))
    p = head.with_background(head(head.radius * head.frame)).softmax(1)
    assert p[:, :-1].argmax(1).tolist() == list(range(K))
    among_classes = p[:, :-1] / p[:, :-1].sum(1, keepdim=True)
    assert among_classes.diagonal().tolist() == pytest.approx([0.999] * K, abs=1e-5)
    origin = head.with_background(head(torch.zeros(1, D))).softmax(1)
    assert origin[0].tolist() == pytest.approx([1 / (K + 1)] * (K + 1), abs=1e-6)


def test_background_cross_entropy_includes_the_background():
    head, h, labels = RBFHead(D, K), features(), torch.arange(N) % K
    batch = Batch(h, labels, torch.arange(N))
    expected = sum(-math.log(rbf(row.tolist(), head)[int(y)]) for row, y in zip(h, labels, strict=True)) / N
    assert float(BackgroundCrossEntropyLoss()(head.outputs(h), batch)) == pytest.approx(expected, rel=1e-5)
    leaf = h.clone().requires_grad_()
    BackgroundCrossEntropyLoss()(head.outputs(leaf), batch).backward()
    # Also the directions that no class vector has: a raw ETF leaves all but K - 1 without a gradient.
    assert int(torch.linalg.matrix_rank(leaf.grad.double(), rtol=1e-5)) == N


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bad_rbf_settings_raise(value):
    with pytest.raises(ValueError, match="gamma must be positive and finite"):
        RBFHead(D, K, gamma=value)
    with pytest.raises(ValueError, match="radius must be positive and finite"):
        RBFHead(D, K, radius=value)
    if not math.isfinite(value):
        with pytest.raises(ValueError, match="background must be finite"):
            RBFHead(D, K, background=value)
