"""Two processes with parts of a batch have the gradients of one process with all of it, for every loss."""

from pathlib import Path

import pytest
import torch
from support.loss_variants import VARIANTS, D, K, build, outputs_for, variant_name
from support.two_processes import in_two_processes
from torch import Tensor

from nc_tools.heads import ETFHead, Head, LinearHead
from nc_tools.losses import (
    ClassBalancedLoss,
    ClassCompactnessLoss,
    ClassSpreadLoss,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    DotRegressionLoss,
    LossTerm,
    NONLLoss,
    NTCELoss,
)
from nc_tools.records import Batch
from nc_tools.specs import Spec, spec

pytestmark = pytest.mark.slow  # two processes
LABELS = torch.tensor([0, 0, 1, 1, 2, 3, 0, 0, 2, 2, 0, 1])  # the parts hold other shares of the classes
IGNORED = LABELS.index_fill(0, torch.tensor([1, 10, 11]), -100)
EVEN, UNEVEN = (LABELS, 6), (IGNORED, 5)
HEADS = ("linear", "etf")
WEIGHTED = (spec(CrossEntropyLoss), spec(NTCELoss), spec(NONLLoss))
Gradients = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]


def is_one_mean_over_the_batch(loss_spec: Spec[LossTerm]) -> bool:
    """Whether parts of any size give the loss of the whole; a plain mean over samples needs parts of one size."""
    over_classes = loss_spec.arguments.get("mean_over") == "classes"
    summed = ClassBalancedLoss, DeferredReweightingLoss, ClassCompactnessLoss, ClassSpreadLoss
    return loss_spec.cls.over_batch or over_classes or issubclass(loss_spec.cls, summed)


def head_of(name: str) -> Head:
    generator = torch.Generator().manual_seed(1)
    if name == "linear":
        return LinearHead(D, K, generator=generator).double()
    return ETFHead(D, K, projection=True, generator=generator).double()


def gradients(
    loss_spec: Spec[LossTerm], name: str, all_labels: Tensor, mine: slice, *, weighted: bool = False
) -> Gradients:
    """Return the gradients of features and head at the second step, and the loss's buffers."""
    weights = {"sample_weight": torch.linspace(0.5, 2.0, len(all_labels)).double()[mine]} if weighted else {}
    torch.manual_seed(0)
    features = torch.randn(len(all_labels), D, dtype=torch.float64)[mine].requires_grad_()
    batch = Batch(features.detach(), all_labels[mine], torch.arange(len(all_labels))[mine])
    head, loss = head_of(name), build(loss_spec).double().train()
    for step in range(2):
        loss.set_progress(0.3 * step)
        features.grad = None
        head.zero_grad()
        loss(outputs_for(loss, head, features), batch, **weights).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    of_head = {key: p.grad for key, p in head.named_parameters() if p.grad is not None}
    return features.grad, of_head, {key: b.clone() for key, b in loss.named_buffers()}


def _worker(rank: int, folder: str) -> None:
    results = {}
    for name in HEADS:
        for number, loss_spec in enumerate(VARIANTS):
            for labels, cut in (EVEN, UNEVEN):
                mine = slice(0, cut) if rank == 0 else slice(cut, len(labels))
                results[name, number, cut] = gradients(loss_spec, name, labels, mine)
        for number, loss_spec in enumerate(WEIGHTED):
            for labels, cut in (EVEN, UNEVEN):
                mine = slice(0, cut) if rank == 0 else slice(cut, len(labels))
                results[name, len(VARIANTS) + number, cut] = gradients(loss_spec, name, labels, mine, weighted=True)
    torch.save(results, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, int, int], Gradients]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    in_two_processes(_worker, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("number", range(len(VARIANTS)), ids=[variant_name(loss_spec) for loss_spec in VARIANTS])
@pytest.mark.parametrize("name", HEADS)
def test_two_processes_are_one(parts: list[dict[tuple[str, int, int], Gradients]], name: str, number: int) -> None:
    """Gradients are averaged over the processes, as DistributedDataParallel averages them."""
    loss_spec = VARIANTS[number]
    for labels, cut in (EVEN, UNEVEN) if is_one_mean_over_the_batch(loss_spec) else (EVEN,):
        of_features, of_head, buffers = gradients(loss_spec, name, labels, slice(None))
        one, other = (part[name, number, cut] for part in parts)
        torch.testing.assert_close(torch.cat([one[0], other[0]]) / 2, of_features, rtol=1e-9, atol=1e-12)
        assert of_features.abs().max() > 1e-6
        assert one[1].keys() == other[1].keys() == of_head.keys()
        for key, gradient in of_head.items():
            torch.testing.assert_close((one[1][key] + other[1][key]) / 2, gradient, rtol=1e-9, atol=1e-12)
        for key, buffer in buffers.items():
            for part in (one, other):
                torch.testing.assert_close(part[2][key], buffer, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("number", range(len(WEIGHTED)), ids=[variant_name(loss_spec) for loss_spec in WEIGHTED])
@pytest.mark.parametrize("name", HEADS)
def test_two_processes_with_sample_weights_are_one(
    parts: list[dict[tuple[str, int, int], Gradients]], name: str, number: int
) -> None:
    for labels, cut in EVEN, UNEVEN:
        of_features, of_head, _ = gradients(WEIGHTED[number], name, labels, slice(None), weighted=True)
        one, other = (part[name, len(VARIANTS) + number, cut] for part in parts)
        torch.testing.assert_close(torch.cat([one[0], other[0]]) / 2, of_features, rtol=1e-9, atol=1e-12)
        for key, gradient in of_head.items():
            torch.testing.assert_close((one[1][key] + other[1][key]) / 2, gradient, rtol=1e-9, atol=1e-12)


def test_losses_of_pairs_and_of_batch_statistics_are_over_the_batch() -> None:
    """Alone a part of a batch gives another gradient: what is not marked here would fail above."""
    marked = {loss_spec.cls.__name__ for loss_spec in VARIANTS if loss_spec.cls.over_batch}
    assert marked == {
        "BalancedSupConLoss", "ClassConditionalInfoNCELoss", "CodingRateLoss", "DHELLoss", "FeatureEntropyLoss",
        "NONLLoss", "NTCELoss", "SpreadLoss", "SupConLoss",
    }  # fmt: skip
    assert not DotRegressionLoss.over_batch
