"""Losses against scalar references that import neither torch.nn.functional nor nc_tools."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loss_variants import (
    COUNTS,
    VARIANTS,
    D,
    GivenLogits,
    K,
    N,
    batch_of,
    built,
    outputs_of,
    seen_by,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import (
    CrossEntropyLoss,
    DotRegressionLoss,
    EarlyLearningLoss,
    LogitAdjustedLoss,
    LossTerm,
    PerSampleLoss,
    adjust_logits,
    dot_regression,
    log_prior,
    logit_adjusted_cross_entropy,
)
from nc_tools.records import Batch
from nc_tools.spec import Spec


def softmax_loss(logits: list[float], target: list[float]) -> float:
    top = max(logits)
    norm = top + math.log(sum(math.exp(z - top) for z in logits))
    return sum(t * (norm - z) for t, z in zip(target, logits, strict=True))


def reference_cross_entropy(logits: list[list[float]], labels: list[int], smoothing: float) -> float:
    total = 0.0
    for z, y in zip(logits, labels, strict=True):
        target = [(1 - smoothing) * (k == y) + smoothing / len(z) for k in range(len(z))]
        total += softmax_loss(z, target)
    return total / len(labels)


def reference_logit_adjusted(logits: list[list[float]], labels: list[int], counts: list[int], tau: float) -> float:
    shifted = [[z + tau * math.log(n / sum(counts)) for z, n in zip(row, counts, strict=True)] for row in logits]
    return reference_cross_entropy(shifted, labels, 0.0)


logit_rows = st.lists(st.lists(st.floats(-30, 30), min_size=K, max_size=K), min_size=1, max_size=6)


@given(logit_rows, st.floats(0, 0.9), st.data())
@settings(max_examples=60, deadline=None)
def test_cross_entropy(rows: list[list[float]], smoothing: float, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, K - 1), min_size=len(rows), max_size=len(rows)))
    ours = CrossEntropyLoss(smoothing)(
        outputs_of(torch.tensor(rows, dtype=torch.float64)), batch_of(torch.tensor(labels))
    )
    assert float(ours) == pytest.approx(reference_cross_entropy(rows, labels, smoothing), rel=1e-9, abs=1e-9)


@given(logit_rows, st.floats(0, 2), st.data())
@settings(max_examples=60, deadline=None)
def test_logit_adjusted(rows: list[list[float]], tau: float, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, K - 1), min_size=len(rows), max_size=len(rows)))
    logits, target = torch.tensor(rows, dtype=torch.float64), torch.tensor(labels)
    expected = pytest.approx(reference_logit_adjusted(rows, labels, COUNTS, tau), rel=1e-5, abs=1e-5)
    assert float(LogitAdjustedLoss(COUNTS, tau)(outputs_of(logits), batch_of(target))) == expected
    assert float(logit_adjusted_cross_entropy(logits, target, COUNTS, tau)) == expected


def test_logit_adjustment_at_one_is_balanced_softmax() -> None:
    logits, labels = torch.randn(N, K, dtype=torch.float64), torch.arange(N) % K
    balanced = torch.nn.functional.cross_entropy(logits + torch.tensor(COUNTS, dtype=torch.float64).log(), labels)
    assert float(logit_adjusted_cross_entropy(logits, labels, COUNTS)) == pytest.approx(float(balanced), abs=1e-6)


def test_post_hoc_adjustment_takes_out_the_prior_that_training_puts_in() -> None:
    """A Bayes classifier of the training distribution, adjusted, is the Bayes classifier of the balanced one."""
    likelihood = torch.tensor([[0.2, 0.3, 0.3, 0.2], [0.1, 0.1, 0.1, 0.7]], dtype=torch.float64)
    prior = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    trained = (likelihood * prior).log()
    adjusted = adjust_logits(trained, COUNTS).softmax(1)
    assert torch.allclose(adjusted, likelihood / likelihood.sum(1, keepdim=True), atol=1e-6)
    assert trained.argmax(1).tolist() == [0, 0]
    assert adjusted.argmax(1).tolist()[1] == 3


def test_log_prior_is_that_of_the_shares() -> None:
    """Cross-entropy does not see a common factor; whoever reads the adjusted scores does."""
    expected = [math.log(n / sum(COUNTS)) for n in COUNTS]
    assert log_prior(COUNTS).tolist() == pytest.approx(expected, rel=1e-6)
    assert adjust_logits(torch.zeros(1, K), COUNTS, tau=2.0)[0].tolist() == pytest.approx([-2 * e for e in expected])


def test_prior_of_an_empty_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"classes \[1, 3\] have none"):
        log_prior([4, 0, 2, 0])


@given(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(-30, 30))
@settings(deadline=None)
def test_dot_regression_formula(weight_norm: float, feature_norm: float, dot: float) -> None:
    root = math.sqrt(weight_norm**2 * feature_norm**2)
    expected = 1 / (2 * root) * (dot - root) ** 2
    ours = dot_regression(torch.tensor([dot], dtype=torch.float64), weight_norm, feature_norm)
    assert float(ours) == pytest.approx(expected, rel=1e-9)


def test_dot_regression_of_a_head_is_half_the_squared_gap_of_cosines_and_needs_no_logits() -> None:
    head, h, labels = ETFHead(D, K), torch.randn(N, D), torch.arange(N) % K
    outputs = head.outputs(h)
    value = DotRegressionLoss()(outputs, batch_of(labels))
    assert outputs.computed_logits is None
    total = 0.0
    for row, y in zip(h.tolist(), labels.tolist(), strict=True):
        w = head.frame[y].tolist()
        cosine = sum(a * b for a, b in zip(row, w, strict=True)) / math.sqrt(sum(a * a for a in row))
        total += 0.5 * (cosine - 1) ** 2
    assert float(value) == pytest.approx(total / N, rel=1e-5)


every_loss = pytest.mark.parametrize("wanted", VARIANTS, ids=lambda s: f"{s.cls.__name__}-{', '.join(s.arguments)}")


@every_loss
def test_a_loss_says_whether_it_needs_outliers(wanted: Spec[LossTerm]) -> None:
    """A run gives them to no other loss, and tells beforehand where they are missing."""
    loss, head, h = built(wanted).eval(), ETFHead(D, K), torch.randn(N, D)
    batch, seen = batch_of(torch.arange(N) % K), seen_by(loss, head, h)
    given = loss(seen, batch)
    seen.outliers = None
    if loss.needs_outliers:
        with pytest.raises(ValueError, match="needs images of no class and got none"):
            loss(seen, batch)
    else:
        assert torch.equal(loss(seen, batch), given)


@every_loss
def test_gradcheck(wanted: Spec[LossTerm]) -> None:
    loss, head = built(wanted).double().eval(), ETFHead(D, K, scale=4.0).double()
    labels = torch.arange(5) % K

    def of_features(h: Tensor) -> Tensor:
        return loss(seen_by(loss, head, h), batch_of(labels))  # type: ignore[no-any-return]

    h = torch.randn(5, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(of_features, (h,))


@every_loss
def test_second_derivatives_and_torch_func_see_the_same_loss(wanted: Spec[LossTerm]) -> None:
    loss, head = built(wanted).double().eval(), LinearHead(D, K).double()  # unlike a frame's, its rows are not centered
    if isinstance(loss, EarlyLearningLoss):
        loss.targets.uniform_(0, 1 / K)
    labels = torch.arange(5) % K

    def of_features(h: Tensor) -> Tensor:
        return loss(seen_by(loss, head, h), batch_of(labels))  # type: ignore[no-any-return]

    h = torch.randn(5, D, dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(of_features(h), h)
    assert torch.allclose(torch.func.grad(of_features)(h.detach()), plain, atol=1e-10)
    assert torch.autograd.gradgradcheck(of_features, (h,))
    many = torch.eye(3, dtype=torch.float64)[0]  # several gradients at once, as a Jacobian asks for them
    (batched,) = torch.autograd.grad(of_features(h), h, many, is_grads_batched=True)
    assert torch.allclose(batched[0], plain, atol=1e-10)
    assert float(batched[1:].abs().max()) < 1e-12


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_finite_in_half_precision_and_at_saturation(wanted: Spec[LossTerm], dtype: torch.dtype) -> None:
    loss = built(wanted, feature_dim=K)
    logits = (torch.eye(K)[torch.arange(N) % K] * 2e4 - 1e4).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(seen_by(loss, GivenLogits(K, K), logits), batch_of((torch.arange(N) + 1) % K))
    value.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(value)
    assert value.dtype == torch.float32
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@every_loss
def test_order_of_the_batch_does_not_matter_and_one_class_is_enough(wanted: Spec[LossTerm]) -> None:
    head, h, labels = LinearHead(D, K), torch.nn.functional.normalize(torch.randn(N, D)), torch.arange(N) % K
    order = torch.randperm(N)
    one, two, three = (built(wanted) for _ in range(3))
    straight = one(seen_by(one, head, h), batch_of(labels))
    shuffled = Batch(torch.zeros(N, 1), labels[order], order)
    assert torch.allclose(two(seen_by(two, head, h[order]), shuffled), straight, atol=1e-6)
    assert torch.isfinite(three(seen_by(three, head, h), batch_of(torch.zeros(N, dtype=torch.int64))))


@every_loss
def test_terms_sum_to_the_loss(wanted: Spec[LossTerm]) -> None:
    loss, head, h = built(wanted).eval(), ETFHead(D, K), torch.randn(N, D)
    batch = batch_of(torch.arange(N) % K)
    terms = loss.terms(seen_by(loss, head, h), batch)
    total = torch.stack(list(terms.values())).sum().detach()  # a loss may have parameters of its own
    assert float(total) == pytest.approx(float(loss(seen_by(loss, head, h), batch).detach()), rel=1e-6)


@every_loss
def test_a_loss_of_samples_is_their_mean(wanted: Spec[LossTerm]) -> None:
    loss, head, h = built(wanted).eval(), ETFHead(D, K), torch.randn(N, D)
    if not isinstance(loss, PerSampleLoss) or "mean_over" in wanted.arguments:
        pytest.skip("not the mean of samples")
    batch = batch_of(torch.arange(N) % K)
    each = loss.per_sample(seen_by(loss, head, h), batch)
    assert each.shape == (N,)
    assert torch.allclose(each.mean(), loss(seen_by(loss, head, h), batch), rtol=1e-5)


@every_loss
def test_state_survives_a_checkpoint_and_stays_where_nothing_is_trained(wanted: Spec[LossTerm]) -> None:
    loss, other, head, h = built(wanted), built(wanted), LinearHead(D, K), torch.randn(N, D)
    batch = batch_of(torch.arange(N) % K)
    loss.set_progress(0.5)
    loss(seen_by(loss, head, h), batch)
    other.set_progress(0.5)
    other.load_state_dict(loss.state_dict())
    loss.eval(), other.eval()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    assert torch.equal(loss(seen_by(loss, head, h), batch), other(seen_by(other, head, h), batch))
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


@every_loss
def test_compiles_without_a_graph_break(wanted: Spec[LossTerm]) -> None:
    loss, head, h = built(wanted).eval(), ETFHead(D, K), torch.randn(N, D)
    batch = batch_of(torch.arange(N) % K)

    def step(x: Tensor) -> Tensor:
        return loss(seen_by(loss, head, x), batch)  # type: ignore[no-any-return]

    torch._dynamo.reset()
    assert torch.allclose(torch.compile(step, fullgraph=True, backend="eager")(h), step(h), atol=1e-5)


class Waits(TorchDispatchMode):
    """Note what would make a GPU wait: a tensor turned into a number, or a size that depends on values."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal.default", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if any(name in str(func) for name in self.WAITING):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@every_loss
def test_no_step_waits_for_the_device(wanted: Spec[LossTerm]) -> None:
    loss, head, h = built(wanted), LinearHead(D, K), torch.randn(N, D, requires_grad=True)
    batch = batch_of(torch.arange(N) % K)
    with Waits() as waits:
        for progress in (0.0, 0.5):
            loss.set_progress(progress)
            torch.autograd.backward(loss(seen_by(loss, head, h), batch))
        assert waits.seen == []
        assert h.sum().item() == h.sum().item()
        assert waits.seen  # the mode does see a number being read


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        CrossEntropyLoss(1.0)
    with pytest.raises(ValueError, match="norms must be positive and finite"):
        DotRegressionLoss(weight_norm=0.0)
