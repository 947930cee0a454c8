"""Classification losses against scalar Python: no torch.nn.functional and nothing of nc_tools on that side."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.loss_variants import batch_of, outputs_of
from support.scalar_math import log_softmax, log_sum_exp, softplus
from torch import Tensor

from nc_tools.losses import (
    BinaryCrossEntropyLoss,
    ClassWiseSmoothing,
    CrossEntropyLoss,
    DotRegressionLoss,
    FocalLoss,
    LabelRelaxationLoss,
    LogitNormLoss,
    MeanSquaredLoss,
    NONLLoss,
    NTCELoss,
    binary_cross_entropy,
    focal_loss,
    label_relaxation,
    logit_norm,
    mean_squared,
    smoothed_cross_entropy,
)

K = 4
Row = list[float]
rows = st.lists(st.lists(st.floats(-30, 30), min_size=K, max_size=K), min_size=1, max_size=5)
labeled = rows.flatmap(
    lambda z: st.tuples(st.just(z), st.lists(st.integers(0, K - 1), min_size=len(z), max_size=len(z)))
)
few = settings(max_examples=40, deadline=None)


def tensors(z: list[Row], y: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor(z, dtype=torch.float64), torch.tensor(y)


def near(expected: list[float], tolerance: float = 1e-8) -> object:
    return pytest.approx(expected, rel=tolerance, abs=tolerance)


@given(labeled, st.floats(0, 0.9))
@settings(max_examples=60, deadline=None)
def test_cross_entropy(drawn: tuple[list[Row], list[int]], smoothing: float) -> None:
    z, y = drawn
    expected = 0.0
    for row, own in zip(z, y, strict=True):
        target = [(1 - smoothing) * (k == own) + smoothing / K for k in range(K)]
        expected -= sum(t * v for t, v in zip(target, log_softmax(row), strict=True)) / len(z)
    value = CrossEntropyLoss(smoothing)(*tensors(z, y))
    assert float(value) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(labeled, st.lists(st.floats(0, 0.9), min_size=K, max_size=K))
@few
def test_class_wise_smoothing_of_the_label(drawn: tuple[list[Row], list[int]], strengths: Row) -> None:
    z, y = drawn
    expected = []
    for row, own in zip(z, y, strict=True):
        target = [(1 - strengths[own]) * (k == own) + strengths[own] / K for k in range(K)]
        expected.append(-sum(t * v for t, v in zip(target, log_softmax(row), strict=True)))
    result = smoothed_cross_entropy(*tensors(z, y), torch.tensor(strengths, dtype=torch.float64))
    assert result.tolist() == near(expected)


@given(labeled, st.floats(0, 0.9))
@few
def test_smoothing_of_equal_strengths_is_uniform_smoothing(drawn: tuple[list[Row], list[int]], eps: float) -> None:
    z, y = tensors(*drawn)
    by_class = smoothed_cross_entropy(z, y, torch.full((K,), eps, dtype=torch.float64))
    assert by_class.tolist() == near(smoothed_cross_entropy(z, y, eps).tolist())
    assert smoothed_cross_entropy(z, y, torch.zeros(K)).tolist() == near(smoothed_cross_entropy(z, y).tolist())


@pytest.mark.parametrize(
    ("shape", "middle"), [("linear", 0.5), ("concave", math.sin(math.pi / 4)), ("convex", 1 - math.cos(math.pi / 4))]
)
def test_smoothing_rises_with_the_class(shape: str, middle: float) -> None:
    smoothing = ClassWiseSmoothing(0.4, 0.1, shape)  # type: ignore[arg-type]
    assert smoothing.strengths([10, 110, 60]).tolist() == pytest.approx([0.1, 0.4, 0.1 + 0.3 * middle])
    assert smoothing.strengths([7, 7]).tolist() == pytest.approx([0.4, 0.4])  # equal classes: no 0 / 0
    assert smoothing.strengths([100, 50, 0])[2] == pytest.approx(0.1)  # an empty class is no error here
    shares = torch.tensor([10, 110, 60]) / 180
    assert smoothing.strengths(shares).tolist() == pytest.approx([0.1, 0.4, 0.1 + 0.3 * middle])


def test_the_loss_takes_its_strengths_from_the_class_counts() -> None:
    z, y = torch.randn(6, K), torch.arange(6) % K
    smoothing, counts = ClassWiseSmoothing(0.4, 0.1, "linear"), [100, 60, 20, 0]
    strengths = torch.tensor([0.1 + 0.3 * n / 100 for n in counts])
    expected = smoothed_cross_entropy(z, y, strengths).mean()
    result = CrossEntropyLoss(smoothing, counts)(outputs_of(z), batch_of(y))
    assert float(result) == pytest.approx(float(expected), rel=1e-6)


@given(labeled, st.floats(0, 4))
@few
def test_focal(drawn: tuple[list[Row], list[int]], gamma: float) -> None:
    z, y = drawn
    expected = []
    for row, own in zip(z, y, strict=True):
        log_p = log_softmax(row)[own]
        missing = sum(math.exp(v) for k, v in enumerate(log_softmax(row)) if k != own)
        expected.append(-(missing**gamma) * log_p)
    assert focal_loss(*tensors(z, y), gamma).tolist() == near(expected)


def test_focal_at_zero_is_cross_entropy() -> None:
    z, y = torch.randn(6, K), torch.arange(6) % K
    plain = CrossEntropyLoss()(outputs_of(z), batch_of(y))
    assert torch.allclose(FocalLoss(0.0)(outputs_of(z), batch_of(y)), plain, atol=1e-7)
    assert float(FocalLoss(1.0)(outputs_of(z), batch_of(y))) < float(plain)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 3.0])
def test_focal_of_a_sure_sample_has_a_finite_gradient(gamma: float) -> None:
    z = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(focal_loss(z, torch.tensor([0]), gamma).sum(), z)
    assert gradient.isfinite().all()


@given(labeled, st.lists(st.floats(-5, 5), min_size=K, max_size=K))
@few
def test_binary_cross_entropy(drawn: tuple[list[Row], list[int]], thresholds: Row) -> None:
    z, y = drawn
    expected = []
    for row, own in zip(z, y, strict=True):
        x = [v - b for v, b in zip(row, thresholds, strict=True)]
        expected.append(softplus(-x[own]) + sum(softplus(v) for k, v in enumerate(x) if k != own))
    result = binary_cross_entropy(*tensors(z, y), torch.tensor(thresholds, dtype=torch.float64))
    assert result.tolist() == near(expected, 2e-8)  # torch's softplus is the identity above 20


def test_thresholds_start_at_the_given_value_and_get_a_gradient() -> None:
    loss = BinaryCrossEntropyLoss(K, initial_threshold=math.log(K - 1))
    z, y = torch.zeros(1, K), torch.tensor([1])
    value = loss(outputs_of(z), batch_of(y))
    value.backward()
    assert float(value.detach()) == pytest.approx(-math.log(1 / K) - (K - 1) * math.log(1 - 1 / K), rel=1e-6)
    # d/db: sigmoid(-(z_y - b_y)) at the own class, -sigmoid(z_j - b_j) elsewhere
    assert loss.thresholds.grad is not None
    assert loss.thresholds.grad.tolist() == pytest.approx([-1 / K, 1 - 1 / K, -1 / K, -1 / K], rel=1e-6)
    assert list(BinaryCrossEntropyLoss(K).state_dict()) == ["thresholds"]
    assert BinaryCrossEntropyLoss(K).thresholds.tolist() == [0.0] * K


@given(labeled, st.floats(0.1, 20), st.floats(0.1, 30))
@few
def test_mean_squared(drawn: tuple[list[Row], list[int]], kappa: float, target: float) -> None:
    z, y = drawn
    expected = [
        (sum(v * v for k, v in enumerate(row) if k != own) + kappa * (row[own] - target) ** 2) / K
        for row, own in zip(z, y, strict=True)
    ]
    assert mean_squared(*tensors(z, y), kappa, target).tolist() == near(expected)
    unweighted = [(sum(v * v for k, v in enumerate(row) if k != own) + (row[own] - 1) ** 2) / K
                  for row, own in zip(z, y, strict=True)]  # fmt: skip
    assert mean_squared(*tensors(z, y)).tolist() == near(unweighted)
    given_here = MeanSquaredLoss(kappa, target)(outputs_of(tensors(z, y)[0]), batch_of(torch.tensor(y)))
    assert float(given_here) == pytest.approx(sum(expected) / len(expected))


@given(labeled, st.floats(0.01, 0.9))
@few
def test_label_relaxation_is_the_divergence_from_its_target(drawn: tuple[list[Row], list[int]], alpha: float) -> None:
    z, y = drawn
    expected = []
    for row, own in zip(z, y, strict=True):
        log_p = log_softmax(row)
        others = log_sum_exp([v for k, v in enumerate(log_p) if k != own])
        if math.exp(log_p[own]) > 1 - alpha:
            expected.append(0.0)
            continue
        log_t = [math.log(1 - alpha) if k == own else math.log(alpha) + v - others for k, v in enumerate(log_p)]
        expected.append(sum(math.exp(t) * (t - v) for t, v in zip(log_t, log_p, strict=True)))
    assert label_relaxation(*tensors(z, y), alpha).tolist() == near(expected, 1e-7)


def test_label_relaxation_of_certain_samples_and_its_limits() -> None:
    z, y = torch.tensor([[3.0, 0.0], [0.3, 0.0], [1e4, -1e4], [-1e4, 1e4]], requires_grad=True), torch.zeros(4).long()
    value = label_relaxation(z, y, 0.1)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert gradient.isfinite().all()
    assert value[0] == value[2] == 0
    assert torch.equal(gradient[0], torch.zeros(2))
    assert gradient[1].abs().sum() > 0
    assert gradient[3].tolist() == pytest.approx([-0.9, 0.9])  # -(1 - alpha) at the own class, saturated or not
    unsure = torch.randn(5, K, dtype=torch.float64)
    labels = torch.arange(5) % K
    close = label_relaxation(unsure, labels, 1e-9)
    assert close.tolist() == near(smoothed_cross_entropy(unsure, labels).tolist(), 1e-6)
    relaxed = label_relaxation(unsure, labels, 1 - 1e-9)  # whatever p is, it is sure enough
    assert relaxed.tolist() == near([0.0] * 5, 1e-7)


@given(labeled, st.floats(0.02, 2))
@few
def test_logit_norm(drawn: tuple[list[Row], list[int]], temperature: float) -> None:
    z, y = drawn
    assume(all(sum(v * v for v in row) > 1e-6 for row in z))
    expected = []
    for row, own in zip(z, y, strict=True):
        norm = math.sqrt(sum(v * v for v in row))
        expected.append(-log_softmax([v / norm / temperature for v in row])[own])
    assert logit_norm(*tensors(z, y), temperature).tolist() == near(expected)


def test_logit_norm_of_zero_rows_and_its_derivatives() -> None:
    zero = torch.zeros(1, K, requires_grad=True)
    value = logit_norm(zero, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(value.sum(), zero)
    assert float(value.detach()) == pytest.approx(math.log(K))
    assert gradient.isfinite().all()
    z, y = torch.randn(3, K, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 1])
    assert torch.autograd.gradcheck(lambda x: logit_norm(x, y, 0.3), (z,))
    assert torch.autograd.gradgradcheck(lambda x: logit_norm(x, y, 0.3), (z,))
    loss = LogitNormLoss(0.1)
    assert torch.allclose(loss(outputs_of(z), batch_of(y)), loss(outputs_of(7 * z), batch_of(y)))


SOFT, HARD = torch.full((2, K), 1 / K), torch.zeros(2).long()


@pytest.mark.parametrize(
    "free", [smoothed_cross_entropy, focal_loss, binary_cross_entropy, mean_squared, label_relaxation, logit_norm]
)
def test_soft_labels_and_other_shapes_are_refused(free: object) -> None:
    with pytest.raises(TypeError, match=r"integer class indices \(N,\), got torch.float32 of shape \(2, 4\)"):
        free(torch.zeros(2, K), SOFT)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"labels must have the shape \(3,\), one for each sample, got \(2,\)"):
        free(torch.zeros(3, K), HARD)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CrossEntropyLoss(1.0), r"label_smoothing must lie in \[0, 1\), got 1.0"),
        (lambda: CrossEntropyLoss(-0.1), r"label_smoothing must lie in \[0, 1\), got -0.1"),
        (lambda: CrossEntropyLoss(ClassWiseSmoothing()), "class-wise smoothing needs class_counts"),
        (lambda: ClassWiseSmoothing(0.1, 0.2), "0 <= tail <= head < 1, got head=0.1, tail=0.2"),
        (lambda: ClassWiseSmoothing(1.0, 0.2), "head < 1"),
        (lambda: ClassWiseSmoothing(shape="steep"), "'linear', 'concave' or 'convex', got 'steep'"),  # type: ignore[arg-type]
        (lambda: FocalLoss(-1.0), "gamma must be finite and not negative, got -1.0"),
        (lambda: FocalLoss(math.nan), "gamma must be"),
        (lambda: BinaryCrossEntropyLoss(1), "at least 2 classes, got 1"),
        (lambda: MeanSquaredLoss(kappa=0.0), "kappa must be positive and finite, got 0.0"),
        (lambda: MeanSquaredLoss(target=-1.0), "target must be positive and finite, got -1.0"),
        (lambda: LabelRelaxationLoss(0.0), r"alpha must lie in \(0, 1\), got 0.0. For alpha = 0 use CrossEntropyLoss"),
        (lambda: LabelRelaxationLoss(1.0), r"alpha must lie in \(0, 1\)"),
        (lambda: LogitNormLoss(0.0), "temperature must be positive and finite, got 0.0"),
        (lambda: NTCELoss(-0.1), "temperature must be positive and finite, got -0.1"),
        (lambda: NONLLoss(math.inf), "temperature must be positive and finite, got inf"),
        (lambda: DotRegressionLoss(mean_over="batches"), "'samples' or 'classes', got 'batches'"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="built for 3 classes, but the logits have 4"):
        binary_cross_entropy(torch.zeros(2, K), HARD, torch.zeros(3))
    with pytest.raises(ValueError, match="built for 3 classes, but the logits have 4"):
        smoothed_cross_entropy(torch.zeros(2, K), HARD, torch.zeros(3))
