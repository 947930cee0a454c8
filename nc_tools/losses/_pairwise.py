"""Similarities of all pairs of a batch, computed in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nc_tools._support.precision import at_least_float32
from nc_tools.records import Outputs

# Largest number of similarities in a block: 4 MB of float32. A batch with fewer is one block, and takes no longer than
# with plain autograd.
_BLOCK = 2**20
# Score of a pair that does not count, and log-sum-exp of a row without any pair that does. It has no gradient; minus
# infinity would give NaN in such a row.
_NONE = -1e30


def two_views(outputs: Outputs, loss: str) -> tuple[Tensor, Tensor]:
    """Return the embedded features (N, D') of both views of the images, in at least float32.

    Raises:
        ValueError: If there is one view only, or the two are not of the same images.
    """
    if outputs.second_view is None:
        raise ValueError(
            f"{loss} needs two views of each image, but outputs.second_view is None. Build the loader with "
            f"BatchOptions(views=2), or set outputs.second_view to what the head computes from the second view."
        )
    if outputs.second_view.features.shape != outputs.features.shape:
        raise ValueError(
            f"{loss} needs two views of the same images, got features {tuple(outputs.features.shape)} and "
            f"{tuple(outputs.second_view.features.shape)}: pass the images in the same order in both views"
        )
    return at_least_float32(outputs.embedded), at_least_float32(outputs.second_view.embedded)


def by_rows(per_anchor: Callable[[Tensor, Tensor], Tensor], anchors: Tensor, keys: int) -> Tensor:
    """Compute a value for each anchor (N) from its similarities to all keys (M), without an N x M matrix.

    Blocks of rows are computed one after the other, and again for the gradient (activation checkpointing). Memory is
    that of O(N D) numbers and a few blocks, for any batch size.

    Args:
        per_anchor: Function from anchors (B, D) and their positions in the batch (B,) to values (B,).
        anchors: (N, D).
        keys: M, the number of similarities of each anchor.

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


def among(pairs: Tensor, kept: Tensor | None) -> Tensor:
    """Return the mask of pairs (B, M), bool, without those whose key does not count: ``kept`` is (M,)."""
    return pairs if kept is None else pairs & kept


def of_kept(values: Tensor, kept: Tensor | None) -> Tensor:
    """Return values (N,) with 0 for the rows that do not count."""
    return values if kept is None else torch.where(kept, values, 0)


def log_sum_exp(scores: Tensor, keep: Tensor) -> Tensor:
    """Return log(sum(exp(s))) of the kept values of each row (B,); -1e30 for a row that keeps nothing.

    Args:
        scores: (B, M).
        keep: (B, M), bool.

    Example:
        >>> log_sum_exp(torch.zeros(1, 3), torch.tensor([[True, False, False]])).item()
        0.0
    """
    return scores.masked_fill(~keep, _NONE).logsumexp(1)


def mean_over(values: Tensor, keep: Tensor) -> Tensor:
    """Return the mean of the kept values of each row (B,); 0 for a row that keeps nothing."""
    return torch.where(keep, values, 0).sum(1) / keep.sum(1).clamp(min=1)
