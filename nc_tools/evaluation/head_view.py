"""What the metrics read of a head."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class HeadView(Protocol):
    """What the metrics read of a head: a :class:`~nc_tools.heads.Head`, or a view of a linear layer."""

    @property
    def num_classes(self) -> int:
        """K."""

    @property
    def bias(self) -> Tensor | None:
        """Bias of each class (K,), or None."""

    @property
    def scale(self) -> Tensor | float:
        """A number, or a tensor that broadcasts to (K,)."""

    @property
    def affine(self) -> bool:
        """Whether the logits are scale * embedded @ weight.T + bias."""

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D')."""


@torch.no_grad()
def class_vectors(head: HeadView) -> tuple[Tensor | None, Tensor | None]:
    """Return the head's weight (K, D'), multiplied by its scale, and its bias: logits = embedded @ weight.T + bias.

    Both are None for a head whose logits are not of this form.
    """
    if not head.affine:
        return None, None
    scale = torch.as_tensor(head.scale, dtype=torch.float32, device=head.weight.device)
    weight = head.weight.detach().float() * (scale[:, None] if scale.ndim == 1 else scale)
    return weight, None if head.bias is None else head.bias.detach().float()
