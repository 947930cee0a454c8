"""The losses of a pack: few calls for all members with the same loss, where that gives the same numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nc_tools.losses.cross_entropy import CrossEntropyLoss
from nc_tools.losses.dot_regression import DotRegressionLoss
from nc_tools.losses.focal import FocalLoss
from nc_tools.losses.generalized_cross_entropy import GeneralizedCrossEntropyLoss
from nc_tools.losses.label_relaxation import LabelRelaxationLoss
from nc_tools.losses.logit_adjusted import BalancedSoftmaxLoss, LogitAdjustedLoss
from nc_tools.losses.loss_term import LossTerm
from nc_tools.losses.per_sample import PerSampleLoss
from nc_tools.losses.symmetric_cross_entropy import SymmetricCrossEntropyLoss
from nc_tools.losses.vector_scaling import VectorScalingLoss
from nc_tools.records import Batch, HeadLike, Outputs
from nc_tools.training.packed.stack import Block
from nc_tools.training.packed.stacked_head import Rows
from nc_tools.training.packed.stacked_step import StackedStep

# Losses whose value for a batch is the plain mean over samples, each computed from its sample alone, without state.
# Exact types: a subclass may keep state. Losses that are not listed are called once for each member.
_BY_SAMPLE: tuple[type[PerSampleLoss], ...] = (
    BalancedSoftmaxLoss, CrossEntropyLoss, DotRegressionLoss, FocalLoss, GeneralizedCrossEntropyLoss,
    LabelRelaxationLoss, LogitAdjustedLoss, SymmetricCrossEntropyLoss, VectorScalingLoss,
)  # fmt: skip

_LARGE = 2**16  # logits that a CPU copies in more time than another call takes


def loss_groups(losses: Sequence[LossTerm]) -> list[int]:
    """Return for each loss the number of its group; losses of one group are computed in few calls.

    Example:
        >>> loss_groups([CrossEntropyLoss(), FocalLoss(), CrossEntropyLoss()])
        [0, 1, 0]
    """
    firsts: list[LossTerm] = []
    groups = []
    for loss in losses:
        same = (number for number, first in enumerate(firsts) if _same_by_sample(first, loss))
        groups.append(next(same, len(firsts)))
        if groups[-1] == len(firsts):
            firsts.append(loss)
    return groups


class StackedLosses:
    """The losses of M members: few calls for each group of losses, with the numbers of one call for each member.

    Args:
        losses: The members' losses, on their device.
        blocks: The blocks of each group of losses; all members of a group have the same loss.
    """

    def __init__(self, losses: Sequence[LossTerm], blocks: Sequence[Sequence[Block]]) -> None:
        self.losses = list(losses)
        self._with_schedule = [loss for loss in losses if not _is_by_sample(loss)]
        self._groups = [(losses[own[0].place], own) for own in blocks]
        order = torch.tensor([place for own in blocks for block in own for place in block.places])
        self._places = order.argsort()

    def __call__(self, step: StackedStep) -> Tensor:
        """Return the loss of each member (M,)."""
        values = []
        for loss, blocks in self._groups:
            if _is_by_sample(loss):
                values += [_together(loss, own, step) for own in _calls(blocks, step)]
            else:
                values.append(_alone(loss, blocks[0], step))
        self._places = self._places.to(step.labels.device)
        return torch.cat(values)[self._places]

    def set_progress(self, progress: float) -> None:
        """Set the share of training that is done, for losses with a schedule."""
        for loss in self._with_schedule:
            loss.set_progress(progress)


class _FlatHead:
    """The heads of a group as one head, with the samples of its members in a row: (M, B, K) becomes (M B, K)."""

    weight: Any = None
    class_vectors: Any = None
    bias: Any = None
    scale: Any = 1.0

    def __init__(self, step: StackedStep, blocks: Sequence[Block]) -> None:
        self._step, self._blocks = step, blocks
        self.num_classes = step.parts[blocks[0].stack].stack.head.num_classes

    def embed(self, features: Tensor) -> Tensor:
        return features  # the step has embedded them already

    def compute_logits(self, embedded: Tensor) -> Tensor:  # noqa: ARG002
        for block in self._blocks:
            self._step.read_embedded.update(block.places)
        return _joined([self._step.logits_of(block) for block in self._blocks]).flatten(0, 1)

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        return _joined([self._step.parts[block.stack].label_scores(block) for block in self._blocks]).flatten()


class _MemberHead:
    """One member's head as its loss sees it. All comes from the stacked tensors, so that gradients reach them."""

    bias: Tensor | None
    scale: Tensor | float

    def __init__(self, step: StackedStep, block: Block) -> None:
        self._step, self._block = step, block
        self._head = step.parts[block.stack].stack.head
        self.num_classes = self._head.num_classes
        bias, scale = self._head.bias(), self._head.scale()
        self.bias = None if bias is None else bias[block.first]
        self.scale = 1.0 if scale is None else scale[block.first].squeeze()

    @property
    def weight(self) -> Tensor:
        return self._head.weight()[self._block.first]

    def class_vectors(self) -> Tensor:
        return self.weight

    def embed(self, features: Tensor) -> Tensor:  # noqa: ARG002
        return _only(self._step.embedded_of(self._block))

    def compute_logits(self, embedded: Tensor) -> Tensor:  # noqa: ARG002
        return self._step.logits_of(self._block).squeeze(0)

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        own = self.weight.index_select(0, labels).to(features.dtype)
        return (own * _only(self._step.parts[self._block.stack].embedded_of(self._block))).sum(-1)


def _calls(blocks: Sequence[Block], step: StackedStep) -> list[list[Block]]:
    """Divide blocks with the same loss into calls. One with many logits has its own, so that they are not copied."""
    calls: list[list[Block]] = []
    for is_large, group in itertools.groupby(blocks, key=lambda block: _is_large(block, step)):
        own = list(group)
        calls += [[block] for block in own] if is_large else [own]
    return calls


def _is_large(block: Block, step: StackedStep) -> bool:
    count = block.size * step.labels.shape[1] * step.parts[block.stack].stack.head.num_classes
    return step.labels.is_cpu and count >= _LARGE


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _only(rows: Rows) -> Tensor:
    """Return the features (B, D) of the only member."""
    return rows.squeeze(0) if isinstance(rows, Tensor) else rows.parts[0]


def _together(loss: LossTerm, blocks: Sequence[Block], step: StackedStep) -> Tensor:
    """Return the losses of members with the same loss, from one call on the samples of all of them."""
    assert isinstance(loss, PerSampleLoss)  # noqa: S101 (all of _BY_SAMPLE are)
    labels = _joined([step.labels[block.place : block.place + block.size] for block in blocks])
    rows = step.parts[blocks[0].stack].rows.parts[0]  # for its device and dtype: these losses read no features
    outputs = Outputs(rows, rows, _FlatHead(step, blocks))
    batch = Batch(rows, labels.flatten(), labels.flatten())
    return loss.compute_per_sample(outputs, batch).view(labels.shape).mean(1)


def _alone(loss: LossTerm, block: Block, step: StackedStep) -> Tensor:
    """Return the loss of one member (1,), from a call with the same batch as in a separate training."""
    rows = step.parts[block.stack].rows.parts[block.stream]
    head: HeadLike = _MemberHead(step, block)
    return loss(Outputs(rows, rows, head), step.batches[block.place]).unsqueeze(0)


def _is_by_sample(loss: LossTerm) -> bool:
    return type(loss) in _BY_SAMPLE and getattr(loss, "mean_over", "samples") == "samples"


def _same_by_sample(one: LossTerm, other: LossTerm) -> bool:
    """Return True if one call of ``one`` gives the values of both: a loss by sample, with equal settings."""
    if type(one) is not type(other) or not _is_by_sample(one) or _settings(one) != _settings(other):
        return False
    mine, theirs = dict(one.named_buffers()), dict(other.named_buffers())
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _settings(loss: LossTerm) -> dict[str, Any]:
    return {name: value for name, value in vars(loss).items() if not name.startswith("_")}
