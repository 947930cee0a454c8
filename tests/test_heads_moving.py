"""Prototype, pre-allocated, radial-basis, two-space and balanced-calibration heads: behavior beyond the contract."""

import json
import math

import pytest
import torch
from support.small_training import Batches, small
from torch import nn
from torch.nn.functional import cross_entropy

from nc_tools.heads import (
    LEARNED,
    BalancedCalibrationHead,
    ETFHead,
    LearnedScale,
    LinearHead,
    PreallocatedHead,
    PrototypeHead,
    RBFHead,
    TwoSpaceHead,
    default_scale,
)
from nc_tools.losses import BackgroundCrossEntropyLoss, CrossEntropyLoss
from nc_tools.metrics import expected_calibration_error
from nc_tools.records import Batch
from nc_tools.training import OptimConfig, TrainConfig, fit

D, K, N = 16, 5, 11


def features(n=N, seed=1):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def unit(row):
    norm = math.sqrt(sum(v * v for v in row))
    return [v / norm for v in row]


# Prototypes


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_prototypes_go_to_the_vertices(progress):
    head, h = PrototypeHead(D, K, momentum=0.0), features()
    labels = torch.arange(N) % (K - 1)  # the last class has not come yet
    head.observe(head.outputs(h), labels, progress)
    for k in range(K):
        vertex = head.frame[k].tolist()
        rows = [unit(row.tolist()) for row, y in zip(h, labels, strict=True) if int(y) == k]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else vertex
        way = [(1 - progress) * p + progress * m for p, m in zip(unit(mean), vertex, strict=True)]
        assert head.weight[k].tolist() == pytest.approx(unit(way), abs=1e-6)


def test_before_a_step_and_after_the_last_the_head_is_an_etf_head():
    head, fixed = PrototypeHead(D, K, frame_seed=3), ETFHead(D, K, frame_seed=3)
    assert torch.allclose(head(features()), fixed(features()), atol=1e-5)
    for progress in (0.5, 1.0):
        head.observe(head.outputs(features()), torch.arange(N) % K, progress)
    assert torch.allclose(head(features()), fixed(features()), atol=1e-5)
    assert int(head.class_means.counts.sum()) == 2 * N


def test_training_takes_prototypes_all_the_way():
    model, halfway = small(PrototypeHead(6, 3)), []
    training, optim = TrainConfig(epochs=4), OptimConfig(lr=0.01)
    fit(
        model,
        CrossEntropyLoss(),
        Batches(),
        training,
        optim,
        epoch_end=lambda *_: halfway.append(float(model.head.progress)),
    )
    assert halfway == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert torch.allclose(model.head.weight, model.head.frame, atol=1e-6)


# Pre-allocated classes


def test_growing_moves_no_row_and_no_score():
    head = PreallocatedHead(D, 3, capacity=8)
    before, weight = head(features()), head.weight.clone()
    assert before.shape == (N, 3)
    head.grow(6)
    assert torch.equal(head.weight[:3], weight)
    assert head(features()).shape == (N, 6)
    assert torch.allclose(head(features())[:, :3], before, atol=1e-6)
    gram = head.weight @ head.weight.T
    assert torch.allclose(gram, (8 * torch.eye(6) - 1) / 7, atol=1e-6)
    assert list(head.parameters()) == []


def test_the_scale_is_that_of_all_that_will_come():
    assert PreallocatedHead(D, 3, capacity=8).scale == default_scale(8)
    assert PreallocatedHead(D, 3).capacity == D + 1
    assert PreallocatedHead(D, 3, projection=5).capacity == 6
    assert PreallocatedHead(D, 3, projection=True, capacity=40).frame.shape == (40, 40)


@pytest.mark.parametrize(("saved", "built", "then"), [(3, 3, 3), (3, 6, 6), (6, 3, 6)])
def test_a_checkpoint_of_other_classes_loads_and_the_larger_number_counts(saved, built, then):
    old, head = PreallocatedHead(D, saved, capacity=8, frame_seed=4), PreallocatedHead(D, built, capacity=8)
    head.load_state_dict(old.state_dict())
    assert (head.num_classes, head.frame_seed) == (then, 4)
    assert torch.equal(head.frame, old.frame)
    assert torch.allclose(head(features())[:, : min(saved, then)], old(features()), atol=1e-6)


def test_what_grew_is_saved_as_grown():
    head = PreallocatedHead(D, 3, capacity=8)
    head.grow(5)
    values = json.loads(bytes(head.state_dict()["_extra_state"].tolist()))
    assert (values["num_classes"], values["capacity"]) == (5, 8)


def test_growth_has_bounds():
    head = PreallocatedHead(D, 3, capacity=5)
    with pytest.raises(ValueError, match=r"at most 5 classes, cannot grow to 6: .* capacity=6"):
        head.grow(6)
    with pytest.raises(ValueError, match="cannot shrink to 2"):
        head.grow(2)
    assert head.num_classes == 3
    head.grow(5)
    with pytest.raises(ValueError, match="capacity must be at least num_classes=5, got 4"):
        PreallocatedHead(D, 5, capacity=4)
    with pytest.raises(ValueError, match="needs feature_dim >= 19, got 16: use projection=19"):
        PreallocatedHead(D, 5, capacity=20)
    with pytest.raises(ValueError, match=r"checkpoint's frame is for 6 classes, this head's for 5: .* capacity=6"):
        head.load_state_dict(PreallocatedHead(D, 3, capacity=6).state_dict(), strict=False)


def test_old_classes_train_on_after_growth():
    head = PreallocatedHead(D, 2, capacity=4, projection=True)
    for classes in (2, 4):
        head.grow(classes)
        cross_entropy(head(features()), torch.arange(N) % classes).backward()
        assert torch.isfinite(head.projection.weight.grad).all()


# Radial basis


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


# Two spaces


def test_two_spaces_against_scalar_loops():
    head, h = TwoSpaceHead(4, 3, scale=5.0), features()[:3, :4]
    for n in range(3):
        hidden = [max(0.0, sum(a * b for a, b in zip(row, h[n].tolist(), strict=True))) for row in head.up.tolist()]
        u = unit([sum(a * b for a, b in zip(row, hidden, strict=True)) for row in head.down.tolist()])
        assert head.outputs(h).embedded[n].tolist() == pytest.approx(u, abs=1e-5)
        for k in range(3):
            expected = 5.0 * sum(a * b for a, b in zip(head.frame[k].tolist(), u, strict=True))
            assert float(head(h)[n, k]) == pytest.approx(expected, abs=1e-4)
    assert torch.equal(head.outputs(h).features, h)


@pytest.mark.parametrize(("hidden", "width"), [(None, None), (D + 1, None), (40, 9)])
def test_the_projectors_layers_are_tight_and_centered(hidden, width):
    head = TwoSpaceHead(D, K, hidden=hidden, width=width)
    wide, narrow = hidden or 4 * D, width or D
    assert (head.up.shape, head.down.shape, head.frame.shape) == ((wide, D), (narrow, wide), (K, narrow))
    assert torch.allclose(head.up.T @ head.up, wide / D * torch.eye(D), atol=1e-5)
    assert torch.allclose(head.down @ head.down.T, torch.eye(narrow), atol=1e-5)
    assert float(head.up.sum(0).abs().max()) < 1e-4
    assert float(head.down.sum(1).abs().max()) < 1e-4


def test_the_widest_etf_is_a_true_one():
    up = TwoSpaceHead(D, K, hidden=D + 1).up
    assert torch.allclose(up @ up.T, ((D + 1) * torch.eye(D + 1) - 1) / D, atol=1e-5)


def test_frozen_as_published_or_learned_from_there():
    frozen, learned = TwoSpaceHead(D, K), TwoSpaceHead(D, K, learned=True)
    assert list(frozen.parameters()) == []
    assert [name for name, _ in learned.named_parameters()] == ["up", "down"]
    assert torch.equal(frozen(features()), learned(features()))
    learned.load_state_dict(frozen.state_dict())
    assert not torch.equal(TwoSpaceHead(D, K, frame_seed=1).up, frozen.up)
    leaf = features(64).requires_grad_()
    cross_entropy(frozen(leaf), torch.arange(64) % K).backward()
    assert int(torch.linalg.matrix_rank(leaf.grad)) == D


def test_the_projector_removes_the_mean_of_a_relu():
    """Without centered rows, unit features of any inputs would share one direction."""
    embedded = TwoSpaceHead(256, K).embed(torch.randn(500, 256, generator=torch.Generator().manual_seed(0)))
    assert float(embedded.mean(0).norm()) < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": D}, f"hidden must be at least feature_dim \\+ 1 = {D + 1}, got {D}"),
        ({"width": K - 2}, f"width must be {K - 1} to {4 * D - 1} for {K} classes and hidden={4 * D}, got width={K - 2}"),
        ({"width": 4 * D}, "got width=64"),
        ({"scale": -1.0}, "scale must be positive"),
    ],
)
def test_bad_sizes_of_two_spaces_raise(change, message):
    with pytest.raises(ValueError, match=message):
        TwoSpaceHead(D, K, **change)
    assert TwoSpaceHead(4, 30)(torch.zeros(2, 4)).shape == (2, 30)


# Balanced calibration


def balanced(**options):
    return BalancedCalibrationHead(D, K, generator=torch.Generator().manual_seed(0), **options)


def test_the_mixture_is_that_of_its_parts():
    head, h = balanced(mix=0.3, scale=4.0), features()
    linear, etf = head.parts(h)
    for n in range(N):
        u = unit(h[n].tolist())
        for k in range(K):
            dot = sum(a * b for a, b in zip(head.etf.frame[k].tolist(), u, strict=True))
            own = sum(a * b for a, b in zip(head.linear.weight[k].tolist(), h[n].tolist(), strict=True))
            own += float(head.linear.bias[k].detach())
            assert float(etf[n, k]) == pytest.approx(4.0 * dot, abs=1e-4)
            assert float(linear[n, k].detach()) == pytest.approx(own, abs=1e-4)
            assert float(head(h)[n, k].detach()) == pytest.approx(0.3 * own + 0.7 * 4.0 * dot, abs=1e-4)
    assert head.weight.shape == (K, 2 * D)


def test_the_share_is_given_or_learned():
    assert float(balanced(mix=0.3).mix) == pytest.approx(0.3)
    assert "raw_mix" not in dict(balanced(mix=0.3).named_parameters())
    for mix, start in ((LEARNED, 0.8), (LearnedScale(0.4), 0.4)):
        head = balanced(mix=mix)
        assert float(head.mix.detach()) == pytest.approx(start)
        cross_entropy(head(features()), torch.arange(N) % K).backward()
        assert float(head.raw_mix.grad.abs()) > 0
    for bad in (0.0, 1.0, -0.2, math.nan):
        with pytest.raises(ValueError, match="mix must lie strictly between 0 and 1"):
            balanced(mix=bad)


def calibration_data(head, n=4000):
    """Features whose label is a softmax draw from the ETF part sharpened by half, which the linear part overstates."""
    generator = torch.Generator().manual_seed(4)
    h = torch.randn(n, D, generator=generator)
    with torch.no_grad():
        head.linear.weight.copy_(8.0 * head.etf.frame)
        head.linear.bias.zero_()
        truth = (1.2 * h @ head.etf.frame.T).softmax(1)
    return h, torch.multinomial(truth, 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("mix", [0.8, LEARNED])
def test_balance_makes_confidence_match_accuracy(mix):
    head = balanced(mix=mix, scale=2.0)
    h, labels = calibration_data(head)
    before = expected_calibration_error(head(h).detach(), labels)
    share = head.balance(h, labels)
    assert float(head.mix.detach()) == pytest.approx(share, abs=1e-5)
    p = head(h).detach().softmax(1)
    accuracy = float((p.argmax(1) == labels).float().mean())
    assert float(p.max(1).values.mean()) == pytest.approx(accuracy, abs=1e-3)
    assert expected_calibration_error(head(h).detach(), labels) < before / 3


def test_balance_also_where_the_etf_part_is_the_surer_one():
    head = balanced(scale=50.0)
    h, labels = calibration_data(head)
    with torch.no_grad():
        head.linear.weight.mul_(0.01)
    assert 0.5 < head.balance(h, labels) < 0.999
    p = head(h).detach().softmax(1)
    assert float(p.max(1).values.mean()) == pytest.approx(float((p.argmax(1) == labels).float().mean()), abs=1e-3)


def test_if_no_share_balances_the_nearer_part_is_taken():
    sure, timid = balanced(scale=50.0), balanced(scale=1e-3)
    for head, expected in ((sure, 0.0), (timid, 1.0)):
        h, _ = calibration_data(head, 200)
        with torch.no_grad():
            head.linear.weight.mul_(100.0 if head is sure else 1e-2)
        guess = head.parts(h)[1].argmax(1)
        wrong = (guess + 1) % K if head is sure else guess
        assert head.balance(h, wrong) == pytest.approx(expected, abs=1e-5)
        assert torch.isfinite(head(h)).all()
    with pytest.raises(ValueError, match="at least one sample"):
        sure.balance(torch.zeros(0, D), torch.zeros(0, dtype=torch.int64))


def test_the_linear_part_is_a_linear_head_drawn_as_one():
    reference = LinearHead(D, K, generator=torch.Generator().manual_seed(0))
    assert torch.equal(balanced().linear.weight, reference.weight)
