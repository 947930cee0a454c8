"""The kinds of heads that can be stacked: linear, cosine, and fixed frames with or without projection."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from nc_tools._support.class_sums import class_sums
from nc_tools.heads.fixed_head import FixedHead
from nc_tools.heads.frame import FixedFrameHead
from nc_tools.heads.head import Head
from nc_tools.heads.linear import CosineHead, LinearHead
from nc_tools.heads.nearest_etf_head import NearestETFHead
from nc_tools.heads.normalize import normalize
from nc_tools.heads.projection import Projection
from nc_tools.heads.scale import Scale
from nc_tools.training.packed.stacked_head import Rows, StackedHead
from nc_tools.training.packed.stream_product import SharedRows, stacked_product

_METHODS = (
    "forward", "outputs", "embed", "_project", "compute_logits", "label_scores", "class_vectors", "weight", "scale",
    "bias", "observe",
)  # fmt: skip


def head_kind(head: Head) -> Hashable | None:
    """Return what heads of one stack must have in common; None for a head that cannot be stacked.

    A head with a frozen parameter cannot be stacked, nor can one of a subclass that changes how embedded features,
    logits or class vectors are computed, or how it learns from steps.

    Example:
        >>> head_kind(LinearHead(4, 3)) == head_kind(LinearHead(4, 3)), head_kind(LinearHead(4, 3, bias=False))[-1]
        (True, False)
    """
    if not all(parameter.requires_grad for parameter in head.parameters()):
        return None
    shape = (head.feature_dim, head.num_classes, str(next(iter(head.state_dict().values())).dtype))
    if isinstance(head, LinearHead) and _computes_as(head, LinearHead):
        return "linear", *shape, head.bias is not None
    if isinstance(head, CosineHead) and _computes_as(head, CosineHead):
        return "cosine", *shape, _scale_kind(head.scale_of)
    if isinstance(head, FixedFrameHead):
        nearest = isinstance(head, NearestETFHead)
        if _computes_as(head, NearestETFHead if nearest else FixedFrameHead):
            if type(head.projection) not in (type(None), Projection):  # a layer of LoRA, say
                return None
            projected = head.projection is not None
            buffers = tuple("frame" if name == head._stored_as else name for name, _ in head.named_buffers())
            scale = _scale_kind(head.scale_of)
            return "frame", *shape, nearest, projected, head.normalize, head.width, scale, buffers
    return None


def stack_heads(heads: Sequence[Head]) -> StackedHead:
    """Stack heads of one kind; the parameters and buffers of each become views of the stacked tensors.

    Raises:
        ValueError: If they are of different kinds, or of a kind that cannot be stacked.
    """
    kinds = {head_kind(head) for head in heads}
    if len(kinds) != 1 or None in kinds:
        names = ", ".join(sorted({type(head).__name__ for head in heads}))
        raise ValueError(f"heads that are stacked must be of one kind and shape, got {names}: train them one by one")
    if isinstance(heads[0], LinearHead):
        return _Linear(heads)
    return _Cosine(heads) if isinstance(heads[0], CosineHead) else _Frame(heads)


class _Linear(StackedHead):
    def weight(self) -> Tensor:
        return self.parameters["weight"]

    def bias(self) -> Tensor | None:
        return self.parameters.get("bias")

    def embed(self, rows: SharedRows) -> Rows:
        return rows


class _Scaled(StackedHead):
    """Heads with a scale, learned or fixed."""

    def scale(self) -> Tensor:
        raw = self.parameters.get("scale_of.raw")
        return self.buffers["scale_of.fixed"] if raw is None else nn.functional.softplus(raw)


class _Cosine(_Scaled):
    def weight(self) -> Tensor:
        return normalize(self.parameters["direction"])

    def embed(self, rows: SharedRows) -> Rows:
        return SharedRows([normalize(part) for part in rows.parts], rows.sizes)


class _Frame(_Scaled):
    """Fixed frames, with a projection or without, and with the bias of the nearest ETF where the heads have it."""

    def weight(self) -> Tensor:
        head = self.heads[0]
        assert isinstance(head, FixedFrameHead)  # noqa: S101 (stack_heads has ensured it)
        return self.buffers[head._stored_as]

    def embed(self, rows: SharedRows) -> Rows:
        normalized = isinstance(self.heads[0], FixedHead) and self.heads[0].normalize
        projection = self.parameters.get("projection.weight")
        if projection is None:
            return SharedRows([normalize(part) for part in rows.parts], rows.sizes) if normalized else rows
        projected = stacked_product(rows, projection.to(rows.parts[0].dtype))
        return normalize(projected) if normalized else projected

    def bias(self) -> Tensor | None:
        if "class_means.means" not in self.buffers:
            return None
        means, observed = self.buffers["class_means.means"], self.buffers["class_means.observed"]
        overall = means.sum(1) / (observed > 0).sum(1, keepdim=True).clamp(min=1)
        return -self.scale().to(means.dtype) * torch.bmm(self.weight(), overall.unsqueeze(2)).squeeze(2)

    def observe(self, embedded: Rows, labels: Tensor, progress: float) -> None:  # noqa: ARG002
        if "class_means.means" in self.buffers:
            rows = embedded if isinstance(embedded, Tensor) else embedded.stacked()
            update_means(
                self.buffers["class_means.means"], self.buffers["class_means.observed"], self._momentum, rows, labels
            )
            for head in self.heads:
                assert isinstance(head, NearestETFHead)  # noqa: S101
                head.count_step()

    @property
    def _momentum(self) -> Tensor:
        momenta = [head.class_means.momentum for head in self.heads if isinstance(head, NearestETFHead)]
        return torch.tensor(momenta, dtype=torch.float64).view(-1, 1)


def update_means(means: Tensor, observed: Tensor, momentum: Tensor, rows: Tensor, labels: Tensor) -> None:
    """Update the running class means of many members, as ``RunningClassMeans`` does for one.

    Args:
        means: (M, K, D'), changed in place.
        observed: 1 for a class that has a mean, else 0 (M, K), changed in place.
        momentum: (M, 1).
        rows: Embedded features (M, B, D').
        labels: (M, B).

    Example:
        >>> means, observed = torch.zeros(1, 2, 1), torch.zeros(1, 2)
        >>> for value in (4.0, 8.0):
        ...     rows, labels = torch.tensor([[[value], [value + 2]]]), torch.tensor([[0, 0]])
        ...     update_means(means, observed, torch.tensor([[0.75]]), rows, labels)
        >>> means.flatten().tolist(), observed.tolist()
        ([6.0, 0.0], [[1.0, 0.0]])
    """
    members, classes, _ = means.shape
    group = (labels + classes * torch.arange(members, device=labels.device).unsqueeze(1)).flatten()
    new, sums = class_sums(rows.flatten(0, 1), group, members * classes)
    present = new.view_as(observed)
    # In float32, as the numbers of RunningClassMeans are.
    share = torch.where(observed > 0, (1 - momentum).to(means.device, torch.float32), 1.0) * (present > 0)
    batch_means = sums.view_as(means) / present.clamp(min=1).unsqueeze(2)
    means += (share.unsqueeze(2) * (batch_means - means)).to(means.dtype)
    observed.copy_((observed > 0) | (present > 0))


def _computes_as(head: Head, base: type[Head]) -> bool:
    return all(getattr(type(head), name, None) is getattr(base, name, None) for name in _METHODS)


def _scale_kind(scale: Scale) -> str:
    if not scale.learned:
        return "fixed"
    return "learned per class" if scale.per_class else "learned"
