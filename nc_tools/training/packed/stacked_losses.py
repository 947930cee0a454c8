"""The losses of a pack: one call for all members with the same loss where that gives the same numbers."""

from __future__ import annotations

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
from nc_tools.training.packed.stacked_head import Rows, StackedHead
from nc_tools.training.packed.stream_product import SharedRows

# Losses of which the batch's value is the plain mean over samples, each computed from that sample alone, without state.
# Exact types: a subclass may keep state. Losses that are not listed are called once for each member.
_BY_SAMPLE: tuple[type[PerSampleLoss], ...] = (
    BalancedSoftmaxLoss, CrossEntropyLoss, DotRegressionLoss, FocalLoss, GeneralizedCrossEntropyLoss,
    LabelRelaxationLoss, LogitAdjustedLoss, SymmetricCrossEntropyLoss, VectorScalingLoss,
)  # fmt: skip


class StackedStep:
    """A step of a pack: its features, and what losses have read of it so far.

    Args:
        head: The stacked heads.
        rows: The features of the step.
        batches: The batch of each member; members of one stream share theirs.

    Attributes:
        embedded: The embedded features.
        labels: (M, B).
        read_logits: The members whose losses have read their logits.
        read_embedded: The members whose losses have read their embedded features.
    """

    def __init__(self, head: StackedHead, rows: SharedRows, batches: Sequence[Batch]) -> None:
        self.head = head
        self.rows = rows
        self.batches = batches
        self.embedded = head.embed(rows)
        self.labels = torch.stack([batch.labels for batch in batches])
        self.read_logits: set[int] = set()
        self.read_embedded: set[int] = set()
        self._logits: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """The logits (M, B, K) of all members, computed when a loss first reads some of them."""
        if self._logits is None:
            self._logits = self.head.compute_logits(self.embedded)
        return self._logits


class StackedLosses:
    """The losses of M members, computed with as few calls as give the same numbers as one call for each.

    Args:
        losses: The members' losses, on their device.
    """

    def __init__(self, losses: Sequence[LossTerm]) -> None:
        self.losses = list(losses)
        self._with_schedule = [loss for loss in losses if not _is_by_sample(loss)]
        groups: list[list[int]] = []
        for member, loss in enumerate(losses):
            group = next((members for members in groups if _same_by_sample(losses[members[0]], loss)), None)
            if group is None:
                groups.append([member])
            else:
                group.append(member)
        self._groups = [(losses[members[0]], torch.tensor(members)) for members in groups]

    def __call__(self, step: StackedStep) -> Tensor:
        """Return the loss of each member (M,)."""
        values = []
        for loss, members in self._groups:
            if _is_by_sample(loss):
                values.append(_together(loss, members.to(step.labels.device), step))
            else:
                values.append(_alone(loss, int(members), step))
        order = torch.cat([members for _, members in self._groups])
        return torch.cat(values)[order.argsort().to(step.labels.device)]

    def set_progress(self, progress: float) -> None:
        """Set the share of training that is done, for losses with a schedule."""
        for loss in self._with_schedule:
            loss.set_progress(progress)


class _FlatHead:
    """The members of a group, their samples one after the other, as one head: (M, B, K) becomes (M B, K)."""

    weight: Any = None
    class_vectors: Any = None
    bias: Any = None
    scale: Any = 1.0

    def __init__(self, step: StackedStep, members: Tensor) -> None:
        self._step, self._members = step, members
        self.num_classes = step.head.num_classes

    def _chosen(self, values: Tensor) -> Tensor:
        whole = len(self._members) == len(values)
        return (values if whole else values.index_select(0, self._members)).flatten(0, 1)

    def embed(self, features: Tensor) -> Tensor:
        return features  # the step has embedded them already

    def compute_logits(self, embedded: Tensor) -> Tensor:  # noqa: ARG002
        self._step.read_logits.update(self._members.tolist())
        self._step.read_embedded.update(self._members.tolist())
        return self._chosen(self._step.logits)

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        return self._chosen(self._step.head.label_scores(self._step.embedded, self._step.labels))


class _MemberHead:
    """One member's head as its loss sees it. All comes from the stacked tensors, so that gradients reach them."""

    bias: Tensor | None
    scale: Tensor | float

    def __init__(self, step: StackedStep, member: int) -> None:
        self._step, self._member = step, member
        self.num_classes = step.head.num_classes
        bias, scale = step.head.bias(), step.head.scale()
        self.bias = None if bias is None else bias[member]
        self.scale = 1.0 if scale is None else scale[member].squeeze()

    @property
    def weight(self) -> Tensor:
        return self._step.head.weight()[self._member]

    def class_vectors(self) -> Tensor:
        return self.weight

    def embed(self, features: Tensor) -> Tensor:  # noqa: ARG002
        self._step.read_embedded.add(self._member)
        return member_rows(self._step.embedded, self._member)

    def compute_logits(self, embedded: Tensor) -> Tensor:  # noqa: ARG002
        self._step.read_logits.add(self._member)
        return self._step.logits[self._member]

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        own = self.weight.index_select(0, labels).to(features.dtype)
        return (own * member_rows(self._step.embedded, self._member)).sum(-1)


def member_rows(rows: Rows, member: int) -> Tensor:
    """Return the features (B, D) of one member."""
    if isinstance(rows, Tensor):
        return rows[member]
    for part, size in zip(rows.parts, rows.sizes, strict=True):
        if member < size:
            return part
        member -= size
    raise IndexError(f"there is no member {member} beyond the last")


def _together(loss: LossTerm, members: Tensor, step: StackedStep) -> Tensor:
    """Return the losses of members with the same loss, from one call on the samples of all of them."""
    assert isinstance(loss, PerSampleLoss)  # noqa: S101 (all of _BY_SAMPLE are)
    labels = step.labels if len(members) == len(step.labels) else step.labels.index_select(0, members)
    rows = step.rows.parts[0]  # for its device and dtype: these losses read no features
    outputs = Outputs(rows, rows, _FlatHead(step, members))
    batch = Batch(rows, labels.flatten(), labels.flatten())
    return loss.compute_per_sample(outputs, batch).view(len(members), -1).mean(1)


def _alone(loss: LossTerm, member: int, step: StackedStep) -> Tensor:
    """Return the loss of one member (1,), from a call with the same records as in a training of its own."""
    rows = member_rows(step.rows, member)
    head: HeadLike = _MemberHead(step, member)
    return loss(Outputs(rows, rows, head), step.batches[member]).unsqueeze(0)


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
