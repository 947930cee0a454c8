"""Products of many weights with features that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_WIDE = 64  # from this many classes on, the backward pass makes one product for each member


@dataclass(frozen=True, eq=False)
class SharedRows:
    """Features of M members (M, B, D) without M copies: members of one stream read the same samples.

    Attributes:
        parts: The features (B, D) of each stream, without gradients.
        sizes: How many consecutive members read each stream; the sum is M.
    """

    parts: Sequence[Tensor]
    sizes: Sequence[int]

    def stacked(self) -> Tensor:
        """Return the features of every member (M, B, D), with copies."""
        return torch.cat([part.expand(size, *part.shape) for part, size in zip(self.parts, self.sizes, strict=True)])


def choose_rows(first: Tensor, one: SharedRows | Tensor, other: SharedRows | Tensor) -> SharedRows | Tensor:
    """Return the rows of ``one`` for the members where ``first`` (M,) is true, and those of ``other`` elsewhere."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.where(first.view(-1, 1, 1), one, other)
    return one  # shared rows hold nothing that a step changes


def stacked_product(rows: SharedRows | Tensor, weight: Tensor) -> Tensor:
    """Return the product of each member's rows with its own weight, x W^T.

    Args:
        rows: (M, B, D), of each member or shared.
        weight: (M, K, D).

    Returns:
        (M, B, K).

    Example:
        >>> rows = SharedRows([torch.ones(2, 3)], [4])
        >>> stacked_product(rows, torch.ones(4, 5, 3)).shape
        torch.Size([4, 2, 5])
    """
    if isinstance(rows, Tensor):
        return torch.bmm(rows, weight.transpose(1, 2))
    product: Tensor = _SharedProduct.apply(weight, tuple(rows.sizes), *rows.parts)
    return product


class _SharedProduct(torch.autograd.Function):
    """Products of each stream, forward and backward; autograd would copy the features for each member."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, sizes: tuple[int, ...], *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts)
        ctx.sizes = sizes
        members, classes, _ = weight.shape
        out = weight.new_empty(members, parts[0].shape[0], classes)
        together, first = _members_at_once(classes) if weight.is_cpu else members, 0
        for part, size in zip(parts, sizes, strict=True):
            for start in range(first, first + size, together):
                end = min(start + together, first + size)
                # (members K, B) in one product, then to the order of members. With the factor with fewer rows on the
                # left it takes less time.
                vectors = weight[start:end].flatten(0, 1)
                product = vectors @ part.T if len(vectors) < len(part) else (part @ vectors.T).T
                out[start:end] = product.view(end - start, classes, -1).transpose(1, 2)
            first += size
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = ctx.saved_tensors
        members, _, classes = grad.shape
        to_weight = grad.new_empty(members, classes, parts[0].shape[1])
        first = 0
        for part, size in zip(parts, ctx.sizes, strict=True):
            own, out = grad[first : first + size].transpose(1, 2), to_weight[first : first + size]
            if classes < _WIDE:
                torch.mm(own.reshape(size * classes, -1), part, out=out.view(size * classes, -1))
            else:
                torch.bmm(own, part.expand(size, *part.shape), out=out)
            first += size
        return to_weight, None, *(None for _ in parts)


def _members_at_once(classes: int) -> int:
    """Return how many members enter one forward product on a CPU.

    Their class vectors, about 200, or 500 if there are many classes, then stay in its cache beside the features.
    """
    return max(1, (500 if classes >= _WIDE else 200) // classes)
