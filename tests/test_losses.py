"""The contract of every loss: gradients, precision, state, compilation."""

from collections.abc import Callable

import pytest
import torch
from support.loss_variants import (
    VARIANTS,
    D,
    K,
    LogitsHead,
    N,
    batch_of,
    build,
    every_loss,
    outputs_for,
    variant_name,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import (
    EarlyLearningLoss,
    LossTerm,
    PerSampleLoss,
)
from nc_tools.records import Batch
from nc_tools.specs import Spec


@every_loss
def test_a_loss_says_whether_it_needs_outliers(loss_spec: Spec[LossTerm]) -> None:
    """A run gives outliers to no other loss, and checks before training that there are some."""
    loss, head, h = build(loss_spec).eval(), ETFHead(D, K), torch.randn(N, D)
    batch, outputs = batch_of(torch.arange(N) % K), outputs_for(loss, head, h)
    value = loss(outputs, batch)
    outputs.outliers = None
    if loss.needs_outliers:
        with pytest.raises(ValueError, match=r"needs outliers, images of no class, but outputs\.outliers is None"):
            loss(outputs, batch)
    else:
        assert torch.equal(loss(outputs, batch), value)


@every_loss
def test_gradcheck(loss_spec: Spec[LossTerm]) -> None:
    loss, head = build(loss_spec).double().eval(), ETFHead(D, K, scale=4.0).double()
    batch = batch_of(torch.arange(5) % K)
    h = torch.randn(5, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(outputs_for(loss, head, x), batch), (h,))


def of_features(loss_spec: Spec[LossTerm]) -> Callable[[Tensor], Tensor]:
    """Return the loss as a function of five features, in float64 and eval mode."""
    loss = build(loss_spec).double().eval()
    head = LinearHead(D, K).double()  # unlike a frame's, its rows are not centered
    if isinstance(loss, EarlyLearningLoss):
        loss.targets.uniform_(0, 1 / K)
    return lambda h: loss(outputs_for(loss, head, h), batch_of(torch.arange(5) % K))


@every_loss
def test_torch_func_and_batched_gradients_see_the_same_loss(loss_spec: Spec[LossTerm]) -> None:
    function = of_features(loss_spec)
    h = torch.randn(5, D, dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(function(h), h)
    assert torch.allclose(torch.func.grad(function)(h.detach()), plain, atol=1e-10)
    many = torch.eye(3, dtype=torch.float64)[0]  # several gradients at once, as for a Jacobian
    (batched,) = torch.autograd.grad(function(h), h, many, is_grads_batched=True)
    assert torch.allclose(batched[0], plain, atol=1e-10)
    assert float(batched[1:].abs().max()) < 1e-12


@every_loss
@pytest.mark.slow
def test_second_derivatives(loss_spec: Spec[LossTerm]) -> None:
    h = torch.randn(5, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(of_features(loss_spec), (h,))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_finite_in_half_precision_and_at_saturation(loss_spec: Spec[LossTerm], dtype: torch.dtype) -> None:
    loss = build(loss_spec, feature_dim=K)
    logits = (torch.eye(K)[torch.arange(N) % K] * 2e4 - 1e4).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(outputs_for(loss, LogitsHead(K, K), logits), batch_of((torch.arange(N) + 1) % K))
    value.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(value)
    assert value.dtype == torch.float32
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@every_loss
def test_order_of_the_batch_does_not_matter_and_one_class_is_enough(loss_spec: Spec[LossTerm]) -> None:
    head, h, labels = LinearHead(D, K), torch.nn.functional.normalize(torch.randn(N, D)), torch.arange(N) % K
    order = torch.randperm(N)
    one, two, three = (build(loss_spec) for _ in range(3))
    straight = one(outputs_for(one, head, h), batch_of(labels))
    shuffled = Batch(torch.zeros(N, 1), labels[order], order)
    assert torch.allclose(two(outputs_for(two, head, h[order]), shuffled), straight, atol=1e-6)
    assert torch.isfinite(three(outputs_for(three, head, h), batch_of(torch.zeros(N, dtype=torch.int64))))


@every_loss
def test_terms_sum_to_the_loss(loss_spec: Spec[LossTerm]) -> None:
    loss, head, h = build(loss_spec).eval(), ETFHead(D, K), torch.randn(N, D)
    batch = batch_of(torch.arange(N) % K)
    terms = loss.terms(outputs_for(loss, head, h), batch)
    total = torch.stack(list(terms.values())).sum().detach()  # a loss may have parameters of its own
    assert float(total) == pytest.approx(float(loss(outputs_for(loss, head, h), batch).detach()), rel=1e-6)


MEANS = [s for s in VARIANTS if issubclass(s.cls, PerSampleLoss) and "mean_over" not in s.arguments]


@pytest.mark.parametrize("loss_spec", MEANS, ids=variant_name)
def test_a_loss_of_samples_is_their_mean(loss_spec: Spec[LossTerm]) -> None:
    loss, head, h = build(loss_spec).eval(), ETFHead(D, K), torch.randn(N, D)
    assert isinstance(loss, PerSampleLoss)
    batch = batch_of(torch.arange(N) % K)
    each = loss.per_sample(outputs_for(loss, head, h), batch)
    assert each.shape == (N,)
    assert torch.allclose(each.mean(), loss(outputs_for(loss, head, h), batch), rtol=1e-5)


@every_loss
def test_state_survives_a_checkpoint_and_stays_where_nothing_is_trained(loss_spec: Spec[LossTerm]) -> None:
    loss, resumed, head, h = build(loss_spec), build(loss_spec), LinearHead(D, K), torch.randn(N, D)
    batch = batch_of(torch.arange(N) % K)
    loss.set_progress(0.5)
    loss(outputs_for(loss, head, h), batch)
    resumed.set_progress(0.5)
    resumed.load_state_dict(loss.state_dict())
    loss.eval(), resumed.eval()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    assert torch.equal(loss(outputs_for(loss, head, h), batch), resumed(outputs_for(resumed, head, h), batch))
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


class Waits(TorchDispatchMode):
    """Record what would make a GPU wait: a tensor turned into a number, or a size that depends on values."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal.default", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if any(name in str(func) for name in self.WAITING):
            self.waits.append(str(func))
        return func(*args, **(kwargs or {}))


@every_loss
def test_no_step_waits_for_the_device(loss_spec: Spec[LossTerm], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nc_tools.losses._rows.traced", lambda: True)  # as on a GPU: labels are read on the CPU only
    loss, head, h = build(loss_spec), LinearHead(D, K), torch.randn(N, D, requires_grad=True)
    batch = batch_of(torch.arange(N) % K)
    with Waits() as mode:
        for progress in (0.0, 0.5):
            loss.set_progress(progress)
            torch.autograd.backward(loss(outputs_for(loss, head, h), batch))
        assert mode.waits == []
        assert h.sum().item() == h.sum().item()
        assert mode.waits  # the mode does notice that a number is read
