"""Losses of features and class vectors against scalar Python: NTCE, NONL, dot and cosine regression."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loss_variants import batch_of
from support.scalar_math import dot, log_sum_exp, unit
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import (
    CosineRegressionLoss,
    DotRegressionLoss,
    NONLLoss,
    NTCELoss,
    class_mean,
    cosine_regression,
    dot_regression,
    nonl,
    ntce,
)
from nc_tools.losses._rows import rows_of

K, D, N = 4, 6, 9
Row = list[float]
few = settings(max_examples=40, deadline=None)


def tensors(z: list[Row], y: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor(z, dtype=torch.float64), torch.tensor(y)


def near(expected: list[float], tolerance: float = 1e-8) -> object:
    return pytest.approx(expected, rel=tolerance, abs=tolerance)


vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3).filter(lambda v: sum(a * a for a in v) > 1e-2)


@given(
    st.lists(st.tuples(vectors, st.integers(0, K - 1)), min_size=1, max_size=6),
    st.lists(vectors, min_size=K, max_size=K),
    st.floats(0.05, 2),
)
@few
def test_ntce_and_nonl(samples: list[tuple[Row, int]], weight: list[Row], t: float) -> None:
    h, y = [s[0] for s in samples], [s[1] for s in samples]
    of_all, of_negatives = [], []
    for i, own in enumerate(y):
        score = [dot(unit(weight[own]), unit(other)) / t for other in h]
        negatives = [s for s, other in zip(score, y, strict=True) if other != own]
        of_all.append(log_sum_exp(score) - score[i])
        of_negatives.append(log_sum_exp(negatives) - score[i] if negatives else 0.0)
    features, labels = tensors(h, y)
    w = torch.tensor(weight, dtype=torch.float64)
    assert ntce(features, w, labels, t).tolist() == near(of_all, 1e-7)
    assert nonl(features, w, labels, t).tolist() == near(of_negatives, 1e-7)


@pytest.mark.parametrize(("num_classes", "num_rows"), [(3, 3), (50, 8)])
def test_losses_over_the_batch_never_make_more_scores_than_samples_squared(num_classes: int, num_rows: int) -> None:
    shapes: list[tuple[int, ...]] = []

    class Notes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if "mm" in str(func):
                shapes.append(tuple(result.shape))
            return result

    with Notes():
        ntce(torch.randn(8, 6), torch.randn(num_classes, 6), torch.arange(8) % 3)
        nonl(torch.randn(8, 6), torch.randn(num_classes, 6), torch.arange(8) % 3)
    assert shapes == [(num_rows, 8)] * 2


@pytest.mark.parametrize("cls", [NTCELoss, NONLLoss])
def test_losses_over_the_batch_read_no_logits_and_train_a_learned_head(cls: type[NTCELoss | NONLLoss]) -> None:
    head, h, y = LinearHead(6, K), torch.randn(8, 6, requires_grad=True), torch.arange(8) % 3
    outputs = head.outputs(h)
    cls(0.2)(outputs, batch_of(y)).backward()
    assert outputs.computed_logits is None
    assert h.grad is not None
    assert head.weight.grad is not None
    assert h.grad.abs().sum() > 0
    assert head.weight.grad[:3].abs().sum(1).min() > 0
    assert head.weight.grad[3].abs().sum() == 0  # an absent class is no anchor


def test_a_batch_of_one_class_leaves_nonl_nothing_to_do() -> None:
    h = torch.randn(5, 6, requires_grad=True)
    value = NONLLoss()(ETFHead(6, K).outputs(h), batch_of(torch.ones(5).long()))
    value.backward()
    assert float(value.detach()) == 0
    assert h.grad is not None
    assert torch.equal(h.grad, torch.zeros_like(h))


def test_cosine_regression_of_a_head_needs_no_logits() -> None:
    head, h, y = ETFHead(6, K), torch.randn(7, 6), torch.arange(7) % K
    outputs = head.outputs(h)
    value = CosineRegressionLoss()(outputs, batch_of(y))
    assert outputs.computed_logits is None
    total = 0.0
    for row, own in zip(h.tolist(), y.tolist(), strict=True):
        total += 1 - dot(unit(row), head.frame[own].tolist())
    assert float(value) == pytest.approx(total / 7, rel=1e-5)
    assert cosine_regression(torch.tensor([0.25])).tolist() == [0.75]


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, K - 1)), min_size=1, max_size=9), st.floats(0.5, 3))
@few
def test_dot_regression_over_classes_is_what_the_released_code_computes(
    samples: list[tuple[float, int]], length: float
) -> None:
    """There each class vector is longer by sqrt(N / (P c_y)), in the product and in its target."""
    cosines, y = [c for c, _ in samples], [label for _, label in samples]
    stretch = {k: math.sqrt(len(y) / len(set(y)) / y.count(k)) for k in set(y)}
    released = [
        0.5 * (stretch[k] * c * length - stretch[k] * length) ** 2 / length for c, k in zip(cosines, y, strict=True)
    ]

    class Given:
        weight = torch.zeros(K, 2)

        def label_scores(self, labels: Tensor) -> Tensor:  # noqa: ARG002
            return torch.tensor([c * length for c in cosines], dtype=torch.float64)

    loss = DotRegressionLoss(feature_norm=length, mean_over="classes")
    result = loss.compute(Given(), batch_of(torch.tensor(y)))  # type: ignore[arg-type]
    assert float(result) == pytest.approx(sum(released) / len(released), rel=1e-9, abs=1e-12)


def test_class_mean_leaves_absent_classes_out() -> None:
    values = torch.tensor([1.0, 3.0, 8.0], requires_grad=True)
    mean = class_mean(values, torch.tensor([2, 2, 0]), 5)
    mean.backward()
    assert float(mean.detach()) == pytest.approx((2 + 8) / 2)
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([0.25, 0.25, 0.5])


def test_labels_of_the_batch_losses_are_checked_too() -> None:
    with pytest.raises(TypeError, match="class indices"):
        ntce(torch.zeros(2, 3), torch.zeros(K, 3), torch.full((2, K), 1 / K))
    with pytest.raises(TypeError, match=r"torch\.bool"):
        rows_of(torch.zeros(2, 2), torch.ones(2, dtype=torch.bool))


@given(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(-30, 30))
@settings(deadline=None)
def test_dot_regression_formula(weight_norm: float, feature_norm: float, score: float) -> None:
    root = math.sqrt(weight_norm**2 * feature_norm**2)
    expected = 1 / (2 * root) * (score - root) ** 2
    value = dot_regression(torch.tensor([score], dtype=torch.float64), weight_norm, feature_norm)
    assert float(value) == pytest.approx(expected, rel=1e-9)


def test_dot_regression_of_a_head_is_half_the_squared_gap_of_cosines_and_needs_no_logits() -> None:
    head, h, labels = ETFHead(D, K), torch.randn(N, D), torch.arange(N) % K
    outputs = head.outputs(h)
    value = DotRegressionLoss()(outputs, batch_of(labels))
    assert outputs.computed_logits is None
    total = 0.0
    for row, y in zip(h.tolist(), labels.tolist(), strict=True):
        total += 0.5 * (dot(unit(row), head.frame[y].tolist()) - 1) ** 2
    assert float(value) == pytest.approx(total / N, rel=1e-5)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="norms must be positive and finite"):
        DotRegressionLoss(weight_norm=0.0)
