"""The training loop of a pack: as that of a single training, with one batched product for all heads of a kind."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.training.learning_rate import rate_factor
from nc_tools.training.meter import NonFiniteLossError
from nc_tools.training.optimizers import fused, parameter_groups
from nc_tools.training.packed.pack import Pack, PackMember, why_not_packed
from nc_tools.training.packed.pack_meter import PackMeter
from nc_tools.training.packed.stacked_step import StackedStep
from nc_tools.training.stack_in_place import laid_out_as
from nc_tools.training.train_config import TrainConfig

_FOR_LOGITS = {"bias", "scale_of.raw"}
"""Parameters of a head that only its logits depend on; embedded features and class vectors do not."""

PackEpochEnd = Callable[[int, Pack, Sequence[dict[str, float]]], Collection[int] | None]
"""Called after each epoch with its number (from 1), the pack, and the mean values of each of its members. It may return
the places, in ``pack.members``, of those whose training ends here."""


@dataclass(frozen=True)
class PackResult:
    """How the training of one member ended.

    Attributes:
        seconds: Its share of the pack's training time in seconds, without evaluation. The time of an epoch is divided
            among the kinds of heads in proportion to the time that each takes to compute embedded features and logits,
            and equally among the members of a kind.
        error: The error of a loss that became infinite or not a number; None for a member that was trained to the end.
    """

    seconds: float
    error: NonFiniteLossError | None = None


def fit_pack(
    members: Sequence[PackMember],
    training: TrainConfig,
    *,
    accuracy: bool = True,
    epoch_end: PackEpochEnd | None = None,
    stop: StopSignal | None = None,
) -> list[PackResult]:
    """Train the heads of several models side by side, in place. The numbers are those of separate trainings.

    Every step computes all heads of one kind in one batched product. Members may differ in head, loss, rate, weight
    decay, initial weights and, at a higher price, in seed and order of samples. A member whose loss is not finite
    leaves the pack at the end of that epoch; the others are not changed by it.

    A training that :func:`~nc_tools.training.fit` makes alone gives the same weights up to rounding. There are no
    checkpoints: heads on fixed features train in seconds.

    Args:
        members: The trainings, all with the same :func:`~nc_tools.training.packed.pack.pack_key`.
        training: Number of epochs; the batch size is that of the members' loaders.
        accuracy: Measure the accuracy on the training batches too.
        epoch_end: See ``PackEpochEnd``. Its time is not counted.
        stop: Checked after each step; if it is set, ``Killed`` is raised.

    Returns:
        One result for each member, in order.

    Raises:
        ValueError: If a member cannot be packed, or the members do not belong to one pack.
        Killed: If ``stop`` was set.
    """
    for member in members:
        if (reason := why_not_packed(member, training)) is not None:
            raise ValueError(
                f"this head cannot be trained side by side with others, because {reason}: train it with fit(...)"
            )
    run = _PackTraining(members, training, stop, accuracy=accuracy)
    for epoch in range(training.epochs):
        values = run.train_epoch(epoch)
        if not run.present:
            break
        if epoch_end is not None and (ended := epoch_end(epoch + 1, run.pack, values)):
            run.keep([i for place, i in enumerate(run.present) if place not in ended])
            if not run.present:
                break
    for member, error in zip(members, run.errors, strict=True):
        if error is None:
            member.model.eval()
    return [PackResult(spent, error) for spent, error in zip(run.seconds, run.errors, strict=True)]


class _PackTraining:
    """A pack in training: the members that are still present, and how the others ended."""

    def __init__(
        self, members: Sequence[PackMember], training: TrainConfig, stop: StopSignal | None, *, accuracy: bool
    ) -> None:
        self.members = members
        self.present = list(range(len(members)))
        self.seconds = [0.0] * len(members)
        self.errors: list[NonFiniteLossError | None] = [None] * len(members)
        self.pack = Pack(members)
        self._optimizer = _optimizer(members)
        self._steps = len(members[0].batches)
        self._total = self._steps * training.epochs
        self._stop = stop
        self._accuracy = accuracy

    def train_epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train all present members for an epoch, and return the mean values of those that are still present."""
        started = time.perf_counter()
        for member in self.pack.members:
            member.model.train()
            member.loss.train()
        by_stack = [0.0] * len(self.pack.stacks)
        values, errors = self._steps_of(epoch, by_stack)
        spent = (time.perf_counter() - started) / sum(by_stack)
        for i, own, error in zip(self.present, self.pack.shares(by_stack), errors, strict=True):
            self.seconds[i] += spent * own
            self.errors[i] = error
        if not any(errors):
            return values
        values = [own for own, error in zip(values, errors, strict=True) if error is None]
        self.keep([i for i in self.present if self.errors[i] is None])
        return values

    def keep(self, members: list[int]) -> None:
        """Continue with these members, and drop the others."""
        self.present = members
        if members:
            self.pack = Pack([self.members[i] for i in members])
            _drop(self._optimizer, self.pack)

    def _steps_of(
        self, epoch: int, by_stack: list[float]
    ) -> tuple[list[dict[str, float]], list[NonFiniteLossError | None]]:
        """Make the steps of an epoch, and add the seconds that the heads of each stack take to ``by_stack``."""
        pack, optimizer, optim = self.pack, self._optimizer, self.members[0].optim
        meter, first, factor = PackMeter(pack, accuracy=self._accuracy), epoch * self._steps, 1.0
        for number, batches in enumerate(pack.epoch(epoch), start=first):
            factor = rate_factor(number, self._total, optim)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            pack.losses.set_progress(number / self._total)
            step, values = pack.step(batches)
            _hand_out_gradients(pack, step, values)
            if optim.clip_norm is not None:
                for member in pack.members:
                    own = [*member.model.parameters(), *member.loss.parameters()]
                    torch.nn.utils.clip_grad_norm_(own, optim.clip_norm)
            optimizer.step()
            pack.observe(step, (number + 1) / self._total)
            meter.update(step, values)
            for number_of_stack, part in enumerate(step.parts):
                by_stack[number_of_stack] += part.seconds
            if self._stop is not None and self._stop.requested:
                raise Killed(f"training was stopped after step {number + 1} of {self._total}")
        return meter.read(first, factor)


def _hand_out_gradients(pack: Pack, step: StackedStep, values: Tensor) -> None:
    """Compute the gradients of all members at once, and give each parameter its own."""
    stacked = [(stack, name, parameter) for stack in pack.stacks for name, parameter in stack.head.parameters.items()]
    of_losses = [p for member in pack.members for p in member.loss.parameters()]
    inputs = [*(parameter for _, _, parameter in stacked), *of_losses]
    gradients = torch.autograd.grad(values.sum(), inputs, allow_unused=True)
    for (stack, name, parameter), gradient in zip(stacked, gradients, strict=False):
        own = stack.head.of_members[name]
        parts = [None] * len(own) if gradient is None else laid_out_as(parameter, gradient).unbind()
        for single, part in zip(own, parts, strict=True):
            single.grad = part
        if name in _FOR_LOGITS:  # a loss that reads no logits gives these no gradient, rather than zero
            for single, place in zip(own, stack.places, strict=True):
                if place not in step.read_logits:
                    single.grad = None
    for parameter, gradient in zip(of_losses, gradients[len(stacked) :], strict=True):
        parameter.grad = gradient


def _optimizer(members: Sequence[PackMember]) -> torch.optim.Optimizer:
    """Return one optimizer for all members; parameters with the same rate and weight decay are in one group."""
    merged: dict[tuple[float, float], dict[str, Any]] = {}
    for member in members:
        for group in parameter_groups(member.model, member.optim, member.loss):
            same = merged.setdefault((group["peak_lr"], group["weight_decay"]), {**group, "params": []})
            same["params"] += group["params"]
    spec = fused(members[0].optim.optimizer)
    groups = list(merged.values())
    optimizer: torch.optim.Optimizer = spec.build({"params": groups, "lr": groups[0]["lr"], "weight_decay": 0.0})
    return optimizer


def _drop(optimizer: torch.optim.Optimizer, pack: Pack) -> None:
    """Remove the parameters of members that have left the pack."""
    kept = {id(p) for member in pack.members for p in (*member.model.parameters(), *member.loss.parameters())}
    for group in optimizer.param_groups:
        for parameter in (p for p in group["params"] if id(p) not in kept):
            optimizer.state.pop(parameter, None)
        group["params"] = [p for p in group["params"] if id(p) in kept]
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
