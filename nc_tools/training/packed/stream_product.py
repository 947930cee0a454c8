"""Products of many weights with features that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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
    """One matrix product for each stream, forward and backward; autograd would copy the features for each member."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, sizes: tuple[int, ...], *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts)
        ctx.sizes = sizes
        members, classes, _ = weight.shape
        out = weight.new_empty(members, parts[0].shape[0], classes)
        first = 0
        for part, size in zip(parts, sizes, strict=True):
            # (size K, B) in one product, then to the order of members: cheaper than a product for each. With the factor
            # with fewer rows on the left it takes 10 to 40 % less time.
            vectors = weight[first : first + size].flatten(0, 1)
            product = vectors @ part.T if len(vectors) < len(part) else (part @ vectors.T).T
            out[first : first + size] = product.view(size, classes, -1).transpose(1, 2)
            first += size
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = ctx.saved_tensors
        members, _, classes = grad.shape
        to_weight = grad.new_empty(members, classes, parts[0].shape[1])
        first = 0
        for part, size in zip(parts, ctx.sizes, strict=True):
            by_class = grad[first : first + size].transpose(1, 2).reshape(size * classes, -1)
            torch.mm(by_class, part, out=to_weight[first : first + size].view(size * classes, -1))
            first += size
        return to_weight, None, *(None for _ in parts)
