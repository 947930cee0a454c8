"""State and schedules of losses in a loop of one's own: nothing moves in an evaluation, no schedule is forgotten."""

import copy
from collections.abc import Callable

import pytest
import torch
from support.loss_variants import COUNTS, D, K, N, batch_of, build, every_loss, outputs_for, outputs_of
from support.two_processes import in_two_processes
from torch import Tensor

from nc_tools.heads import LinearHead
from nc_tools.losses import (
    ClassBalancedLoss,
    ClassCompactnessLoss,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    EarlyLearningLoss,
    FocalLoss,
    LossTerm,
    WeightedSumLoss,
    term,
)
from nc_tools.records import Batch
from nc_tools.schedules import ConstantSchedule, LinearSchedule
from nc_tools.specs import Spec

LABELS = torch.arange(N) % K


@every_loss
@pytest.mark.parametrize("way", ["no_grad", "inference_mode", "eval"])
def test_an_evaluation_moves_no_state(loss_spec: Spec[LossTerm], way: str) -> None:
    loss, head = build(loss_spec), LinearHead(D, K)
    loss(outputs_for(loss, head, torch.randn(N, D)), batch_of(LABELS))
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "eval": torch.enable_grad}[way]
    if way == "eval":
        loss.eval()
    with context():
        loss(outputs_for(loss, head, torch.randn(N, D)), batch_of(LABELS))
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


SCHEDULED: dict[str, Callable[[], LossTerm]] = {
    "reweighting": lambda: DeferredReweightingLoss(COUNTS),
    "a schedule": lambda: WeightedSumLoss([term(LinearSchedule(0.0, 1.0), CrossEntropyLoss())]),
    "a function": lambda: WeightedSumLoss([term(lambda p: p, CrossEntropyLoss())]),
    "inside": lambda: WeightedSumLoss([term(1.0, DeferredReweightingLoss(COUNTS))]),
    "inside a sum": lambda: WeightedSumLoss(
        [term(1.0, WeightedSumLoss([term(LinearSchedule(0.0, 1.0), CrossEntropyLoss())]), name="inner")]
    ),
}


@pytest.mark.parametrize("make", SCHEDULED.values(), ids=SCHEDULED)
def test_a_loss_that_changes_during_training_says_at_once_that_it_was_not_told_its_progress(
    make: Callable[[], LossTerm],
) -> None:
    z, batch = torch.randn(N, K), batch_of(LABELS)
    message = r"^\w+ changes during training, but was not told its progress: call loss\.set_progress\(step / steps\)"
    for call in (
        lambda loss: loss(z, LABELS),
        lambda loss: loss(outputs_of(z), batch),
        lambda loss: loss.terms(outputs_of(z), batch),
    ):
        loss = make()
        with pytest.raises(RuntimeError, match=message) as refused:
            call(loss)
        assert "loss.set_progress(0.0) once" in str(refused.value)
        with torch.no_grad():  # an evaluation
            call(loss)
        call(loss.eval())
        loss.train()
        for advice in ("step / steps", "0.0"):
            told = make()
            exec(f"loss.set_progress({advice})", {"loss": told, "step": 1, "steps": 10})
            call(told)
            call(copy.deepcopy(told))


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropyLoss(),
        ClassBalancedLoss(COUNTS),
        DeferredReweightingLoss(COUNTS, start=0.0),
        WeightedSumLoss([term(0.5, CrossEntropyLoss()), term(ConstantSchedule(2.0), FocalLoss(), name="two")]),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_other_losses_need_no_progress(loss: LossTerm) -> None:
    assert torch.isfinite(loss(torch.randn(N, K), LABELS))


def test_weights_come_in_an_own_loop_that_tells_the_progress() -> None:
    loss, z = DeferredReweightingLoss(COUNTS, start=0.5), torch.randn(N, K)
    plain, weighted = CrossEntropyLoss()(z, LABELS), ClassBalancedLoss(COUNTS)(z, LABELS)
    values = []
    for step in range(4):
        loss.set_progress(step / 4)
        values.append(loss(z, LABELS))
    assert torch.allclose(torch.stack(values), torch.stack([plain, plain, weighted, weighted]))


def test_a_place_beyond_the_training_set_is_named() -> None:
    loss = EarlyLearningLoss(N, K)
    for index in (torch.arange(N) + 1, torch.arange(N) - 1):
        with pytest.raises(ValueError, match=r"places in the 9 samples for which the loss was built, got -?\d+ to \d+"):
            loss(outputs_of(torch.randn(N, K)), Batch(torch.zeros(N, 1), LABELS, index))


def _one_evaluates(rank: int) -> None:
    losses = [EarlyLearningLoss(N, K), ClassCompactnessLoss(D, K)]
    head, features = LinearHead(D, K), torch.randn(N, D)

    def step() -> list[Tensor]:
        return [loss(head.outputs(features), batch_of(LABELS)) for loss in losses]

    step()
    if rank == 0:
        with torch.no_grad():
            assert all(torch.isfinite(value) for value in step())
    step()  # would meet the evaluation of the other process, or nobody


@pytest.mark.slow
def test_one_process_may_evaluate_alone() -> None:
    in_two_processes(_one_evaluates)
