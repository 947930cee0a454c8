"""Dot regression towards a fixed frame."""

from __future__ import annotations

from torch import Tensor

from nc_tools.losses.base import LossTerm, at_least_float32
from nc_tools.records import Batch, Outputs


def dot_regression(own_score: Tensor, weight_norm: float = 1.0, feature_norm: float = 1.0) -> Tensor:
    """Squared distance of w_y . h from its largest possible value, per sample. See :class:`DotRegression`.

    Args:
        own_score: w_y . h (N,).
        weight_norm: ||w_k||.
        feature_norm: The norm that features are scaled to.

    Returns:
        (N,): (w_y . h - t)^2 / (2 t), t = weight_norm * feature_norm.
    """
    target = weight_norm * feature_norm
    return (own_score - target).square() / (2 * target)


class DotRegression(LossTerm):
    """Pull each feature to its own class vector, without a push from the others: (w_y . h - t)^2 / (2 t).

    Here t = ||w|| ||h||, the largest value that w_y . h can take.

    For fixed frames: the push of cross-entropy, which imbalance makes unequal, is dropped, because the frame already
    keeps the classes apart. Needs w_y alone: O(N D), no logits, whatever K is. Source: Yang et al. 2022, eq. 8, with
    t = sqrt(E_W E_H); h is the feature after the head's projection and normalisation. The released code differs: it
    also rescales the target by the inverse class frequency of the batch, which we leave out.

    Not for a learned weight: nothing would keep its class vectors apart.

    Args:
        weight_norm: ||w_k||; 1 for every frame here.
        feature_norm: ||h||; 1 for a head that normalises.

    Raises:
        ValueError: If a norm is not positive.

    Example:
        >>> import torch
        >>> from nc_tools.heads import ETFHead
        >>> head = ETFHead(8, 3)
        >>> batch = Batch(head.weight.clone(), torch.arange(3), torch.arange(3))
        >>> bool(DotRegression()(head.outputs(batch.inputs), batch) < 1e-12)
        True
    """

    def __init__(self, weight_norm: float = 1.0, feature_norm: float = 1.0) -> None:
        super().__init__()
        if not (weight_norm > 0 and feature_norm > 0):
            raise ValueError(f"norms must be positive, got weight_norm={weight_norm}, feature_norm={feature_norm}")
        self.weight_norm = weight_norm
        self.feature_norm = feature_norm

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return dot_regression(
            at_least_float32(outputs.own_scores(batch.labels)), self.weight_norm, self.feature_norm
        ).mean()
