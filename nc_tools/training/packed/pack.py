"""A pack: members that train side by side, their stacked heads, and the samples that each of them reads."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nc_tools.data.mixing import Batches
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.specs import Spec
from nc_tools.training.mixed_loss import learns_from_steps
from nc_tools.training.packed.head_kinds import head_kind
from nc_tools.training.packed.stack import Block, make_stacks
from nc_tools.training.packed.stacked_losses import StackedLosses, loss_groups
from nc_tools.training.packed.stacked_step import StackedStep, StackStep
from nc_tools.training.packed.stream_product import choose_rows
from nc_tools.training.train_config import OptimConfig, TrainConfig


@dataclass(frozen=True, eq=False)
class PackMember:
    """One training among those that run side by side.

    Attributes:
        model: A backbone without trainable parameters, and the head to train, on one device.
        loss: Its loss, on the same device.
        batches: The loader of its samples. Members that share a loader and a backbone share their features too, which
            saves most of the time.
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
    if member.optim.head_first:
        return "it trains the head first and then the backbone"
    return None


def pack_key(member: PackMember) -> tuple[object, ...]:
    """Return what the members of one pack have in common.

    It is the feature dimension, the number of classes, the number of steps in an epoch, and the optimizer settings
    other than rate, weight decay and ``head_lr_ratio``.
    """
    fixed = replace(member.optim, lr=1.0, weight_decay=0.0, head_lr_ratio=1.0)
    head = member.model.head
    return head.feature_dim, head.num_classes, len(member.batches), repr(fixed), _spec_text(fixed.optimizer)


def _spec_text(spec: Spec[object]) -> str:
    return f"{spec.cls.__module__}.{spec.cls.__qualname__} {sorted(spec.arguments.items())}"


class Pack:
    """Members that train side by side; heads of one kind are stacked.

    Members with the same loader and the same backbone form a stream: their features are computed once. Inside the pack
    the members are sorted by kind of head, stream and loss: its inner order.

    Args:
        members: At least one, all with the same :func:`pack_key`.

    Raises:
        ValueError: If the members' keys differ.
    """

    def __init__(self, members: Sequence[PackMember]) -> None:
        if len({pack_key(member) for member in members}) != 1:
            raise ValueError(
                "the members of a pack must have the same number of features, classes and steps, and the same "
                "optimizer: group them by pack_key(member)"
            )
        self.members = list(members)
        streams = _numbers([(id(member.batches), id(member.model.backbone)) for member in members])
        kinds = _numbers([head_kind(member.model.head) for member in members])
        losses = loss_groups([member.loss for member in members])
        self.streams = [members[streams.index(stream)] for stream in range(max(streams) + 1)]
        """The first member of each stream."""
        # So the members of a stack are consecutive, in it those of a stream, and in that those of a loss.
        keys = list(zip(kinds, streams, losses, strict=True))
        self._order = sorted(range(len(members)), key=keys.__getitem__)
        self._places = torch.tensor(self._order).argsort()
        self._stream_of = [streams[i] for i in self._order]
        self._streams = torch.tensor(self._stream_of)
        self.stacks = make_stacks([members[i].model.head for i in self._order], [keys[i] for i in self._order])
        blocks: list[list[Block]] = [[] for _ in range(max(losses) + 1)]
        for block in (block for stack in self.stacks for block in stack.blocks):
            blocks[losses[self._order[block.place]]].append(block)
        self.losses = StackedLosses([members[i].loss for i in self._order], blocks)

    def epoch(self, epoch: int) -> Iterator[Sequence[Batch]]:
        """Yield the steps of an epoch; each holds the batch of every stream."""
        loaders = {id(first.batches): iter(first.batches.epoch(epoch)) for first in self.streams}
        for _ in range(len(self.streams[0].batches)):
            batches = {key: next(loader) for key, loader in loaders.items()}
            yield [batches[id(first.batches)] for first in self.streams]

    def step(self, batches: Sequence[Batch]) -> tuple[StackedStep, Tensor]:
        """Return a step on the batch of every stream, and the loss of each member (M,), in the pack's inner order."""
        with torch.no_grad():
            features = [
                batch.inputs if first.applied else first.model.backbone(batch.inputs)
                for first, batch in zip(self.streams, batches, strict=True)
            ]
        by_stream = torch.stack([batch.labels for batch in batches])
        self._streams = self._streams.to(by_stream.device)
        labels = by_stream[self._streams]
        parts = [
            StackStep(stack, stack.rows(features), labels[stack.place : stack.place + sum(stack.sizes)])
            for stack in self.stacks
        ]
        step = StackedStep(parts, labels, [batches[stream] for stream in self._stream_of])
        return step, self.losses(step)

    @torch.no_grad()
    def logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the logits (M, N, K) of all members, in the order in which the members were given.

        Args:
            inputs: For each stream, in the order of its first member: the inputs of N samples.
        """
        features = [first.model.backbone(x) for first, x in zip(self.streams, inputs, strict=True)]
        parts = [stack.head.compute_logits(stack.head.embed(stack.rows(features))) for stack in self.stacks]
        return self.in_given_order(torch.cat(parts))

    @torch.no_grad()
    def observe(self, step: StackedStep, progress: float) -> None:
        """Update the heads that learn from steps after this one; ``progress`` is the share of training that is done."""
        for part in step.parts:
            head, places = part.stack.head, part.stack.places
            if not learns_from_steps(head.heads[0]):
                continue
            embedded = part.embedded
            if not step.read_embedded.issuperset(places):
                # For a loss that has not read them, a separate training computes them after the optimizer's step.
                read = torch.tensor([place in step.read_embedded for place in places])
                embedded = choose_rows(read.to(part.labels.device), embedded, head.embed(part.rows))
            head.observe(embedded, part.labels, progress)

    def shares(self, by_stack: Sequence[float]) -> list[float]:
        """Return each member's share of the seconds of its stack, in the order in which the members were given."""
        inner = [own / sum(stack.sizes) for own, stack in zip(by_stack, self.stacks, strict=True) for _ in stack.places]
        return [inner[place] for place in self._places.tolist()]

    def in_given_order(self, values: Tensor) -> Tensor:
        """Return values of the members (M, ...) in the order in which the members were given."""
        self._places = self._places.to(values.device)
        return values[self._places]


def _numbers(values: Sequence[Hashable]) -> list[int]:
    """Return a number for each value, equal for equal values: 0, 1, ... in the order of first occurrence."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return [numbers[value] for value in values]
