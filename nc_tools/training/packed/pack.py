"""A pack: members that train side by side, their stacked heads, and the samples that each of them reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nc_tools.data.mixing import Batches
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.specs import Spec
from nc_tools.training.mixed_loss import learns_from_steps
from nc_tools.training.packed.head_kinds import head_kind, stack_heads
from nc_tools.training.packed.stacked_losses import StackedLosses, StackedStep
from nc_tools.training.packed.stream_product import SharedRows, choose_rows
from nc_tools.training.train_config import OptimConfig, TrainConfig


@dataclass(frozen=True, eq=False)
class PackMember:
    """One training among those that run side by side.

    Attributes:
        model: A backbone without trainable parameters, and the head to train, on one device.
        loss: Its loss, on the same device.
        batches: Its samples. Members that share a loader and a backbone share their features too, which saves most of
            the time.
        optim: Its optimizer settings. Rate, weight decay and ``head_lr_ratio`` may differ in a pack.
        applied: Whether the backbone has been applied to the inputs of ``batches`` already.
    """

    model: Classifier
    loss: LossTerm
    batches: Batches
    optim: OptimConfig
    applied: bool = False


def why_not_packed(member: PackMember, training: TrainConfig) -> str | None:
    """Return why a training cannot be part of a pack, or None if it can."""
    head, loss = member.model.head, member.loss
    if any(p.requires_grad for p in member.model.backbone.parameters()):
        return "its backbone is trained"
    if head_kind(head) is None:
        return f"a {type(head).__name__} cannot be stacked"
    if loss.views != 1 or loss.needs_outliers:
        return f"{type(loss).__name__} needs a second view or outliers"
    if type(loss).terms is not LossTerm.terms:
        return f"{type(loss).__name__} has several terms"
    if member.optim.sam is not None or training.mixing is not None or training.ema_decay is not None:
        return "it uses sharpness-aware steps, mixed batches or a weight average"
    if member.optim.head_first or training.patience is not None:
        return "it trains the head first and then the backbone, or may end early"
    return None


def pack_key(member: PackMember) -> tuple[object, ...]:
    """Return what the members of one pack have in common: the kind of head, the length and the optimizer's settings."""
    fixed = replace(member.optim, lr=1.0, weight_decay=0.0, head_lr_ratio=1.0)
    return head_kind(member.model.head), len(member.batches), repr(fixed), _spec_text(fixed.optimizer)


def _spec_text(spec: Spec[object]) -> str:
    return f"{spec.cls.__module__}.{spec.cls.__qualname__} {sorted(spec.arguments.items())}"


class Pack:
    """Members whose heads are stacked. The order of members is that in which they were given.

    Args:
        members: At least one, all with the same :func:`pack_key`.

    Raises:
        ValueError: If the members' keys differ.
    """

    def __init__(self, members: Sequence[PackMember]) -> None:
        if len({pack_key(member) for member in members}) != 1:
            raise ValueError(
                "the members of a pack must have one kind of head, the same number of steps and the same optimizer: "
                "group them by pack_key(member)"
            )
        self.members = list(members)
        by_stream: dict[tuple[int, int], list[int]] = {}
        for i, member in enumerate(members):
            by_stream.setdefault((id(member.batches), id(member.model.backbone)), []).append(i)
        self._order = [i for stream in by_stream.values() for i in stream]
        self._place = [self._order.index(i) for i in range(len(members))]
        self._sizes = [len(stream) for stream in by_stream.values()]
        self._firsts = [members[stream[0]] for stream in by_stream.values()]
        ordered = [members[i] for i in self._order]
        self.head = stack_heads([member.model.head for member in ordered])
        self.losses = StackedLosses([member.loss for member in ordered])
        self._observing = learns_from_steps(members[0].model.head)

    def epoch(self, epoch: int) -> Iterator[Sequence[Batch]]:
        """Yield the steps of an epoch; each holds the batch of every stream."""
        loaders = {id(first.batches): iter(first.batches.epoch(epoch)) for first in self._firsts}
        for _ in range(len(self._firsts[0].batches)):
            batches = {key: next(loader) for key, loader in loaders.items()}
            yield [batches[id(first.batches)] for first in self._firsts]

    def step(self, batches: Sequence[Batch]) -> tuple[StackedStep, Tensor]:
        """Return a step on the batch of every stream, and the loss of each member (M,), in the pack's inner order."""
        with torch.no_grad():
            features = [
                batch.inputs if first.applied else first.model.backbone(batch.inputs)
                for first, batch in zip(self._firsts, batches, strict=True)
            ]
        by_member = [b for b, size in zip(batches, self._sizes, strict=True) for _ in range(size)]
        step = StackedStep(self.head, self._rows(features), by_member)
        return step, self.losses(step)

    @torch.no_grad()
    def logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the logits (M, N, K) of all members, in the order in which the members were given.

        Args:
            inputs: For each stream, in the order of its first member: the inputs of N samples.
        """
        rows = self._rows([first.model.backbone(x) for first, x in zip(self._firsts, inputs, strict=True)])
        return self.head.compute_logits(self.head.embed(rows))[torch.tensor(self._place)]

    @torch.no_grad()
    def observe(self, step: StackedStep, progress: float) -> None:
        """Let heads that learn from steps see this one."""
        if not self._observing:
            return
        embedded = step.embedded
        if len(step.read_embedded) < len(self.members):
            # Where a loss has not read them, a training of its own computes them after the step.
            after = self.head.embed(step.rows)
            read = torch.tensor([place in step.read_embedded for place in range(len(self.members))])
            embedded = choose_rows(read.to(step.labels.device), embedded, after)
        self.head.observe(embedded, step.labels, progress)

    def in_given_order(self, values: Tensor) -> Tensor:
        """Return values of the members (M, ...) in the order in which the members were given."""
        return values[torch.tensor(self._place, device=values.device)]

    @property
    def streams(self) -> list[PackMember]:
        """The first member of each stream."""
        return self._firsts

    def _rows(self, features: Sequence[Tensor]) -> SharedRows:
        dtype = torch.promote_types(self.head.weight().dtype, torch.float32)
        return SharedRows([f.to(torch.promote_types(f.dtype, dtype)) for f in features], self._sizes)
