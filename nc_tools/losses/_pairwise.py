"""Similarities of all pairs of a batch, a block of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nc_tools.losses.loss_term import widen
from nc_tools.records import Outputs

# Similarities in a block: 4 MB of float32. A batch below it is one block and costs nothing beside plain autograd.
_BLOCK = 2**20
# Stands for minus infinity without its NaN: a row without any key left has this log-sum-exp, and no gradient.
_NONE = -1e30


def two_views(outputs: Outputs, loss: str) -> tuple[Tensor, Tensor]:
    """Return both views behind the head's projection and normalization (N, D'), each at least float32.

    Raises:
        ValueError: If there is one view only, or the two are not of the same images.
    """
    if outputs.second_view is None:
        raise ValueError(
            f"{loss} needs two views of each image and got one: ask the loader for views=2, or fill "
            f"outputs.second_view with what the model makes of the second view"
        )
    if outputs.second_view.features.shape != outputs.features.shape:
        raise ValueError(
            f"{loss} needs both views of the same images, got features {tuple(outputs.features.shape)} and "
            f"{tuple(outputs.second_view.features.shape)}"
        )
    return widen(outputs.embedded), widen(outputs.second_view.embedded)


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not positive and finite.

    Raises:
        ValueError: If it is not.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}: .07 to .5 are usual")


def by_rows(per_anchor: Callable[[Tensor, Tensor], Tensor], anchors: Tensor, keys: int) -> Tensor:
    """Compute something per anchor from its similarities to all keys without keeping (N, M) of them.

    Blocks of rows are computed one after the other and again for the gradient (activation checkpoints), so that memory
    is O(N D) and some blocks, whatever the batch.

    Args:
        per_anchor: From anchors (B, D) and their positions (B,) to (B,).
        anchors: (N, D).
        keys: M, how many similarities each anchor has.

    Returns:
        (N,).
    """
    positions = torch.arange(len(anchors), device=anchors.device)
    rows = max(1, _BLOCK // keys)
    if len(anchors) <= rows:
        return per_anchor(anchors, positions)
    parts: list[Tensor] = [
        checkpoint(per_anchor, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(torch.split(anchors, rows), torch.split(positions, rows), strict=True)
    ]
    return torch.cat(parts)


def log_sum_exp(scores: Tensor, keep: Tensor) -> Tensor:
    """Return log sum_{j kept} exp(s_ij) (B,); -1e30, without a gradient, where a row keeps nothing.

    Args:
        scores: (B, M).
        keep: (B, M), bool.

    Example:
        >>> log_sum_exp(torch.zeros(1, 3), torch.tensor([[True, False, False]])).item()
        0.0
    """
    return scores.masked_fill(~keep, _NONE).logsumexp(1)


def mean_over(values: Tensor, keep: Tensor) -> Tensor:
    """Return the mean of the kept values of each row (B,), 0 where a row keeps nothing."""
    return torch.where(keep, values, 0).sum(1) / keep.sum(1).clamp(min=1)
