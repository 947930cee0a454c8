"""Losses called with logits and labels, as PyTorch's are, and with records, as the training loop calls them."""

import sys
from types import FrameType

import pytest
import torch
from support.loss_variants import (
    COUNTS,
    PACKAGE_LOSSES,
    D,
    K,
    LogitsHead,
    N,
    batch_of,
    build,
    every_loss,
    outputs_for,
    outputs_of,
)
from torch import Tensor

from nc_tools._support.labels import check_labels
from nc_tools.heads import LinearHead
from nc_tools.losses import (
    ActivePassiveLoss,
    ClassAffineCrossEntropyLoss,
    ClassBalancedLoss,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    DotRegressionLoss,
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    LogitLoss,
    LossTerm,
    MeanSquaredLoss,
    PerSampleLoss,
    SupConLoss,
    VectorScalingLoss,
    WeightedSumLoss,
    term,
)
from nc_tools.specs import Spec

LABELS = torch.arange(N) % K
SENTENCE = (
    r"^\w+ needs more than logits, but was called with logits and labels: write watched = nc_tools\.watch\(model\)"
)


def takes_logits(loss: torch.nn.Module) -> bool:
    if isinstance(loss, WeightedSumLoss):
        return all(takes_logits(part) for part in loss.losses)
    if isinstance(loss, ClassBalancedLoss):
        return takes_logits(loss.loss)
    if isinstance(loss, ClassAffineCrossEntropyLoss):
        return loss.margin is None
    return isinstance(loss, LogitLoss)


def value_and_gradient(loss: LossTerm, logits: Tensor, *, records: bool) -> tuple[Tensor, Tensor]:
    z = logits.clone().requires_grad_()
    value = loss(outputs_of(z), batch_of(LABELS)) if records else loss(z, LABELS)
    return value.detach(), torch.autograd.grad(value, z)[0]


@every_loss
def test_a_loss_takes_logits_as_it_takes_records_or_says_what_it_needs(loss_spec: Spec[LossTerm]) -> None:
    loss, logits = build(loss_spec, feature_dim=K), 3 * torch.randn(N, K)
    if not takes_logits(loss):
        with pytest.raises(TypeError, match=SENTENCE) as error:
            loss(logits, LABELS)
        assert "\n" not in str(error.value)
        return
    of_tensors = value_and_gradient(loss, logits, records=False)
    of_records = value_and_gradient(loss, logits, records=True)
    assert all(torch.equal(a, b) for a, b in zip(of_tensors, of_records, strict=True))


@every_loss
def test_per_sample_takes_the_same_arguments(loss_spec: Spec[LossTerm]) -> None:
    loss, logits = build(loss_spec, feature_dim=K), torch.randn(N, K)
    if not isinstance(loss, PerSampleLoss):
        assert not hasattr(loss, "per_sample")
    elif takes_logits(loss):
        each = loss.per_sample(logits, LABELS)
        assert torch.equal(each, loss.per_sample(outputs_of(logits), batch_of(LABELS)))
        assert torch.allclose(each.mean(), loss(logits, LABELS), rtol=1e-5)
    else:
        with pytest.raises(TypeError, match=SENTENCE):
            loss.per_sample(logits, LABELS)


@pytest.mark.parametrize("cls", PACKAGE_LOSSES, ids=lambda cls: cls.__name__)
def test_the_docstring_names_watch_where_logits_may_not_be_enough(cls: type[LossTerm]) -> None:
    enough = issubclass(cls, LogitLoss | LogitAdjustedLoss | VectorScalingLoss)
    assert ("nc_tools.watch(model)" in str(cls.__doc__)) != enough


def test_at_least_half_of_the_losses_take_logits() -> None:
    assert sum(takes_logits(build(Spec(cls))) for cls in PACKAGE_LOSSES if cls is not WeightedSumLoss) >= 18


def test_compositions_take_logits_if_all_parts_do() -> None:
    z = torch.randn(N, K)
    total = WeightedSumLoss([term(2.0, CrossEntropyLoss()), term(0.5, MeanSquaredLoss())])
    assert torch.allclose(total(z, LABELS), 2 * CrossEntropyLoss()(z, LABELS) + 0.5 * MeanSquaredLoss()(z, LABELS))
    nested = WeightedSumLoss([term(1.0, total, name="inner"), term(1.0, ClassBalancedLoss(COUNTS))])
    assert torch.allclose(nested(z, LABELS), total(z, LABELS) + ClassBalancedLoss(COUNTS)(z, LABELS))
    late = DeferredReweightingLoss(COUNTS, loss=FocalLoss(), start=0.5)
    late.set_progress(0.0)
    assert torch.allclose(late(z, LABELS), FocalLoss()(z, LABELS))
    late.set_progress(0.5)
    assert not torch.allclose(late(z, LABELS), FocalLoss()(z, LABELS))
    for loss, part in (
        (WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(1.0, SupConLoss())]), "SupConLoss"),
        (DeferredReweightingLoss(COUNTS, loss=LDAMLoss(COUNTS)).eval(), "LDAMLoss"),
        (ClassBalancedLoss(COUNTS, loss=DotRegressionLoss()), "DotRegressionLoss"),
    ):
        with pytest.raises(TypeError, match=f"^{part} needs more than logits"):
            loss(z, LABELS)


class SquaredError(LogitLoss):
    """A loss of one's own: one method."""

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits - torch.nn.functional.one_hot(labels, logits.shape[1])).square().sum(1)


def test_a_loss_of_ones_own_needs_one_method() -> None:
    z, loss = torch.randn(N, K), SquaredError()
    expected = torch.stack([(z[i] - torch.eye(K)[y]).square().sum() for i, y in enumerate(LABELS)])
    assert torch.allclose(loss.per_sample(z, LABELS), expected)
    assert torch.allclose(loss(z, LABELS), expected.mean())
    assert torch.equal(loss(z, LABELS), loss(outputs_of(z), batch_of(LABELS)))
    weighted = ClassBalancedLoss(COUNTS, loss=loss)
    weight = weighted.weight[LABELS]
    assert torch.allclose(weighted(z, LABELS), (weight * expected).sum() / weight.sum())
    assert torch.allclose(WeightedSumLoss([term(3.0, loss)])(z, LABELS), 3 * expected.mean())
    assert list(loss.terms(outputs_of(z), batch_of(LABELS))) == ["SquaredError"]


@pytest.mark.parametrize("loss", [FocalLoss(), ClassBalancedLoss(COUNTS), CrossEntropyLoss().per_sample])
@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (torch.zeros(3, K), torch.full((3, 2), 1 / K), TypeError, r"integer class indices \(N,\), got torch.float32"),
        (torch.zeros(3, K), [0, 1, 2], TypeError, "labels must be a tensor, got list"),
        (torch.zeros(3, K), torch.zeros(2).long(), ValueError, r"the shape \(3,\), one for each sample, got \(2,\)"),
        (
            torch.zeros(3, K),
            torch.zeros(3, 1).long(),
            ValueError,
            r"the shape \(3,\), one for each sample, got \(3, 1\)",
        ),
        (
            torch.zeros(3, K, 2),
            torch.zeros(3).long(),
            ValueError,
            r"labels of logits \(3, 4, 2\) must have the shape \(3, 4\), got \(3,\)",
        ),
        (torch.zeros(3, K).long(), torch.zeros(3).long(), TypeError, "logits must be floating-point, got torch.int64"),
        (torch.zeros(0, K), torch.zeros(0).long(), ValueError, "at least one sample, got an empty batch"),
        (outputs_of(torch.zeros(3, K)), torch.zeros(3).long(), TypeError, r"got outputs and a tensor\. Pass Batch\("),
    ],
)
def test_bad_arguments(loss, logits, labels, error, message) -> None:
    with pytest.raises(error, match=message):
        loss(logits, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_of_any_precision_inside_autocast(dtype: torch.dtype) -> None:
    z = torch.randn(N, K).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value, each = FocalLoss()(z, LABELS), FocalLoss().per_sample(z, LABELS)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert value.dtype == each.dtype == wide
    assert torch.equal(value, FocalLoss()(z.to(wide), LABELS))


@every_loss
def test_labels_are_checked_once(loss_spec: Spec[LossTerm]) -> None:
    loss, head = build(loss_spec), LinearHead(D, K)
    outputs, checks = outputs_for(loss, head, torch.randn(N, D)), 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal checks
        checks += event == "call" and frame.f_code is check_labels.__code__

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        loss.terms(outputs, batch_of(LABELS))
    finally:
        sys.setprofile(before)
    if type(loss) is ActivePassiveLoss:  # its two functions are given, and check for themselves
        assert checks == 3
    else:
        assert checks == (len(loss.losses) if isinstance(loss, WeightedSumLoss) else 1)


def test_a_compiled_loss_takes_logits() -> None:
    loss, z = DeferredReweightingLoss(COUNTS, loss=FocalLoss()), torch.randn(N, K)
    loss.set_progress(0.0)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(z, LABELS), loss(z, LABELS))
    assert torch.allclose(compiled(LogitsHead(K, K).outputs(z), batch_of(LABELS)), loss(z, LABELS))
