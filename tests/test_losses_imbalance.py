"""Losses for class imbalance against scalar Python, and the identities between them."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loss_variants import batch_of, outputs_of
from support.scalar_math import nll
from torch import Tensor

from nc_tools.heads import LEARNED, CosineHead, LinearHead
from nc_tools.losses import (
    ARBLoss,
    BalancedSoftmaxLoss,
    ClassAffineCrossEntropyLoss,
    ClassBalancedLoss,
    ClassWiseSmoothing,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    LossTerm,
    VectorScalingLoss,
    adjust_logits,
    affine_cross_entropy,
    class_balanced_weights,
    effective_number,
    ldam_margins,
    log_prior,
    scaling_factors,
)
from nc_tools.losses._class_counts import checked_counts
from nc_tools.records import Batch, Outputs

COUNTS = [500, 40, 7, 1]
K = len(COUNTS)
Row = list[float]
row = st.lists(st.floats(-20, 20), min_size=K, max_size=K)
per_class = st.lists(st.floats(-3, 3), min_size=K, max_size=K)
labels = st.integers(0, K - 1)
counts = st.lists(st.integers(1, 5000), min_size=K, max_size=K)
few = settings(max_examples=40, deadline=None)


def one(z: Row, own: int) -> tuple[Outputs, Batch]:
    return outputs_of(torch.tensor([z], dtype=torch.float64)), batch_of(torch.tensor([own]))


def wide(values: Row) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_vectors_of_the_kernel_are_tensors() -> None:
    with pytest.raises(TypeError, match=r"shift must be a tensor \(K,\), got 1.0. For one number write torch.full"):
        ClassAffineCrossEntropyLoss(shift=1.0)  # type: ignore[arg-type]


@given(row, labels, per_class, per_class, per_class)
@few
def test_the_kernel(z: Row, own: int, a: Row, b: Row, m: Row) -> None:
    for factor in (None, a):
        for shift in (None, b):
            for margin in (None, m):
                scores = [
                    (1.0 if factor is None else factor[k]) * z[k]
                    + (0.0 if shift is None else shift[k])
                    - (0.0 if margin is None or k != own else margin[k])
                    for k in range(K)
                ]
                chosen = {"factor": factor, "shift": shift, "margin": margin}
                vectors = {name: wide(v) for name, v in chosen.items() if v is not None}
                result = affine_cross_entropy(wide(z)[None], torch.tensor([own]), **vectors)
                assert float(result) == pytest.approx(nll(scores, own), rel=1e-9, abs=1e-9)


@given(row, labels, counts, st.floats(0, 1), st.floats(0, 2))
@few
def test_vector_scaling(z: Row, own: int, n: list[int], gamma: float, tau: float) -> None:
    scores = [(c / max(n)) ** gamma * v + tau * math.log(c / sum(n)) for v, c in zip(z, n, strict=True)]
    result = VectorScalingLoss(n, gamma, tau)(*one(z, own))
    assert float(result) == pytest.approx(nll(scores, own), rel=1e-5, abs=1e-5)
    adjusted = LogitAdjustedLoss(n, tau)(*one(z, own))
    assert float(VectorScalingLoss(n, 0.0, tau)(*one(z, own))) == pytest.approx(float(adjusted), rel=1e-6, abs=1e-6)


@given(row, labels, counts)
@few
def test_balanced_softmax(z: Row, own: int, n: list[int]) -> None:
    top = max(z)
    expected = -math.log(
        n[own] * math.exp(z[own] - top) / sum(c * math.exp(v - top) for v, c in zip(z, n, strict=True))
    )
    result = float(BalancedSoftmaxLoss(n)(*one(z, own)))
    assert result == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert float(LogitAdjustedLoss(n, tau=1.0)(*one(z, own))) == result
    assert float(ARBLoss(n)(*one(z, own))) == result
    assert ARBLoss is BalancedSoftmaxLoss  # a comparison must not take the two for two methods


def test_defaults_are_those_of_the_sources() -> None:
    assert (VectorScalingLoss(COUNTS).gamma, VectorScalingLoss(COUNTS).tau) == (0.3, 1.0)
    assert LDAMLoss(COUNTS).max_margin == 0.5
    assert LogitAdjustedLoss(COUNTS).tau == 1.0
    assert (DeferredReweightingLoss(COUNTS).start, DeferredReweightingLoss(COUNTS).beta) == (0.8, 0.9999)
    assert (ClassBalancedLoss(COUNTS).beta, FocalLoss().gamma) == (0.9999, 2.0)


def test_scaling_factors_are_one_for_the_largest_class() -> None:
    assert scaling_factors([100, 25, 1], 0.5).tolist() == pytest.approx([1.0, 0.5, 0.1])


@given(counts, st.floats(0.01, 2))
@few
def test_margins(n: list[int], largest: float) -> None:
    raw = [c**-0.25 for c in n]
    expected = [largest * m / max(raw) for m in raw]
    assert ldam_margins(n, largest).tolist() == pytest.approx(expected, rel=1e-6)
    assert float(ldam_margins(n, largest).max()) == pytest.approx(largest)


def rows_of(head: CosineHead | LinearHead, h: Tensor, margins: Row, y: list[int]) -> float:
    """LDAM over a cosine head as the paper has it: s (c_y - m_y) against s c_j, in scalar floats."""
    scale, weight, total = float(torch.as_tensor(head.scale).detach()), head.weight.tolist(), 0.0
    for x, own in zip(h.tolist(), y, strict=True):
        norm = math.sqrt(sum(a * a for a in x))
        cosines = [sum(a * b for a, b in zip(x, w, strict=True)) / norm for w in weight]
        total += nll([scale * (c - (margins[k] if k == own else 0)) for k, c in enumerate(cosines)], own)
    return total / len(y)


@pytest.mark.parametrize("scale", [30.0, LEARNED])
def test_ldam_multiplies_its_margin_by_the_scale_of_the_head(scale: object) -> None:
    head = CosineHead(6, K, scale=scale).double()  # type: ignore[arg-type]
    h, y = torch.randn(9, 6, dtype=torch.float64), [0, 1, 2, 3, 0, 1, 2, 3, 3]
    result = LDAMLoss(COUNTS, 0.4)(head.outputs(h), batch_of(torch.tensor(y)))
    raw = [c**-0.25 for c in COUNTS]
    margins = [0.4 * m / max(raw) for m in raw]
    assert float(result.detach()) == pytest.approx(rows_of(head, h, margins, y), rel=1e-6)
    without = LDAMLoss(COUNTS, 0.0)(head.outputs(h), batch_of(torch.tensor(y)))
    plain = CrossEntropyLoss()(head.outputs(h), batch_of(torch.tensor(y)))
    assert torch.equal(without, plain)  # cross-entropy of s cos


def test_a_learned_scale_gets_a_gradient_from_the_margin() -> None:
    """d/ds of s (c_j - c_y + m_y): the margin enters the scale's gradient."""
    head = CosineHead(6, K, scale=LEARNED).double()
    h, y = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % K
    raw, loss = head.scale_of.raw, LDAMLoss(COUNTS).double()

    def value(x: Tensor) -> Tensor:
        with torch.no_grad():
            raw.copy_(x)
        return loss(head.outputs(h), batch_of(y)).detach()

    at = raw.detach().clone()
    (gradient,) = torch.autograd.grad(loss(head.outputs(h), batch_of(y)), raw)
    assert float(gradient) == pytest.approx(float(value(at + 1e-5) - value(at - 1e-5)) / 2e-5, rel=1e-6)


def test_ldam_over_a_linear_head_has_its_margin_in_units_of_the_logits() -> None:
    head, h, y = LinearHead(6, K), torch.randn(5, 6), torch.tensor([3, 3, 0, 1, 2])
    z = head(h).detach()
    moved = z.clone()
    for i, own in enumerate(y.tolist()):
        moved[i, own] -= 0.5 * COUNTS[own] ** -0.25
    expected = torch.nn.functional.cross_entropy(moved, y)
    result = LDAMLoss(COUNTS)(head.outputs(h), batch_of(y)).detach()
    assert float(result) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    "loss", [LDAMLoss(COUNTS), VectorScalingLoss(COUNTS), BalancedSoftmaxLoss(COUNTS), ClassBalancedLoss(COUNTS)]
)
def test_absent_classes_and_a_class_of_one_sample(loss: LossTerm) -> None:
    for y in (torch.full((5,), 3), torch.full((5,), 0), torch.tensor([3, 0, 0, 0, 0]), torch.tensor([3])):
        z = torch.randn(len(y), K, requires_grad=True)
        value = loss(outputs_of(z), batch_of(y))
        (gradient,) = torch.autograd.grad(value, z)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


WITH_EMPTY = [50, 20, 0, 2]
REST = [0, 1, 3]


@pytest.mark.parametrize(
    "build",
    [
        BalancedSoftmaxLoss,
        LogitAdjustedLoss,
        lambda n: LogitAdjustedLoss(n, tau=0.7),
        VectorScalingLoss,
        lambda n: VectorScalingLoss(n, gamma=0.0),
    ],
    ids=["BalancedSoftmax", "LogitAdjusted", "tau", "VectorScaling", "gamma 0"],
)
def test_a_class_without_samples_is_removed_by_its_shift(build: Callable[[list[int]], LossTerm]) -> None:
    z, y = torch.randn(7, K, requires_grad=True), torch.tensor([0, 1, 3, 0, 0, 1, 3])
    value = build(WITH_EMPTY)(z, y)
    without = build([WITH_EMPTY[k] for k in REST])(z[:, REST], torch.tensor([0, 1, 2, 0, 0, 1, 2]))
    assert torch.allclose(value, without)
    gradient, expected = (torch.autograd.grad(loss, z)[0] for loss in (value, without))
    assert torch.allclose(gradient, expected)
    assert not gradient[:, 2].any()


def test_without_a_shift_a_class_without_samples_stays() -> None:
    z, y = torch.randn(7, K), torch.tensor([0, 1, 3, 0, 0, 1, 3])
    assert torch.allclose(LogitAdjustedLoss(WITH_EMPTY, tau=0.0)(z, y), torch.nn.functional.cross_entropy(z, y))
    factor = torch.tensor([(n / 50) ** 0.3 for n in WITH_EMPTY])
    scaled = VectorScalingLoss(WITH_EMPTY, tau=0.0)(z, y)
    assert torch.allclose(scaled, torch.nn.functional.cross_entropy(z * factor, y))


def test_margins_weights_and_smoothing_of_a_class_without_samples() -> None:
    assert ldam_margins(WITH_EMPTY)[REST].tolist() == pytest.approx(ldam_margins([50, 20, 2]).tolist())
    assert float(ldam_margins(WITH_EMPTY)[2]) == 0.5
    for beta in (0.0, 0.9, 0.9999, 1.0):
        weights, rest = class_balanced_weights(WITH_EMPTY, beta), class_balanced_weights([50, 20, 2], beta)
        assert weights[REST].tolist() == pytest.approx(rest.tolist())
        assert float(weights[2]) == 0
        assert effective_number(WITH_EMPTY, beta)[2] == 0
    y = torch.tensor([0, 1, 3])
    for loss in (LDAMLoss(WITH_EMPTY), ClassBalancedLoss(WITH_EMPTY), DeferredReweightingLoss(WITH_EMPTY, start=0.0)):
        assert torch.isfinite(loss(outputs_of(torch.randn(3, K)), batch_of(y)))
    assert torch.isfinite(CrossEntropyLoss(ClassWiseSmoothing(), WITH_EMPTY)(torch.randn(3, K), y))


def test_the_way_out_for_a_class_that_is_missing_in_the_counts_works() -> None:
    z, y = torch.randn(3, K), torch.tensor([0, 1, 3])
    for cls in (LogitAdjustedLoss, VectorScalingLoss, ClassBalancedLoss):
        with pytest.raises(ValueError, match="class_counts of all 4 classes, 0 for a class without training samples"):
            cls([50, 20, 2])(z, y)
        assert torch.isfinite(cls(WITH_EMPTY)(z, y))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LDAMLoss([5, -1, 2]), r"must be finite and not negative, got \[5.0, -1.0, 2.0\]"),
        (lambda: BalancedSoftmaxLoss([0, 0, 0]), "are all 0, but a class needs training samples"),
        (lambda: LogitAdjustedLoss([5, 0], tau=-1.0), "a shift with a negative tau is not defined"),
        (lambda: log_prior([[1, 2]]), r"one number for each of K >= 2 classes, got the shape \(1, 2\)"),  # type: ignore[list-item]
        (lambda: checked_counts([5]), "K >= 2"),
        (lambda: checked_counts(torch.tensor([1.0, torch.inf])), "must be finite"),
        (lambda: VectorScalingLoss(COUNTS, gamma=-0.1), "gamma must be finite and not negative, got -0.1"),
        (lambda: VectorScalingLoss(COUNTS, gamma=math.nan), "gamma must be finite and not negative"),
        (lambda: LDAMLoss(COUNTS, -0.5), "max_margin must be finite and not negative, got -0.5"),
        (lambda: class_balanced_weights(COUNTS, 1.1), r"beta must lie in \[0, 1\], got 1.1"),
        (
            lambda: DeferredReweightingLoss(COUNTS, start=1.5),
            r"start must lie in \[0, 1\], .* got 1.5",
        ),
        (
            lambda: LDAMLoss(COUNTS)(*one([0.0] * 3, 0)),
            "built for 4 classes, but the logits have 3. Build it with class_counts of all 3 classes, 0 for a class",
        ),
        (lambda: LogitAdjustedLoss(COUNTS)(*one([0.0] * 5, 0)), "built for 4 classes, but the logits have 5"),
        (lambda: ClassAffineCrossEntropyLoss(factor=torch.ones(1))(*one([0.0] * 3, 0)), "built for 1 classes"),
        (lambda: adjust_logits(torch.zeros(2, 1), COUNTS), "built for 4 classes, but the logits have 1"),
    ],
)
def test_bad_input(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


def test_soft_labels_are_refused() -> None:
    with pytest.raises(TypeError, match="labels must be integer class indices"):
        affine_cross_entropy(torch.zeros(2, K), torch.full((2, K), 1 / K))


@pytest.mark.parametrize("name", ["factor", "shift", "margin"])
def test_a_number_in_place_of_a_vector_over_classes_is_named(name):
    advice = r"must be tensors with a number for each class, got 2\.0: give torch\.full\(\(3,\), 2\.0\)"
    with pytest.raises(TypeError, match=advice):
        affine_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), **{name: 2.0})
