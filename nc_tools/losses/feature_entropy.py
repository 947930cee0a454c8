"""Spread features over the sphere: the brake on collapse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.heads.normalize import normalize
from nc_tools.losses._pairwise import by_rows
from nc_tools.losses.loss_term import LossTerm, widen
from nc_tools.records import Batch, Outputs


def feature_entropy(features: Tensor, eps: float = 1e-8) -> Tensor:
    """Return -log(distance to the nearest neighbor + eps) of each feature. See :class:`FeatureEntropyLoss`.

    Args:
        features: (N, D); scaled to unit length here.
        eps: Added to the distance.

    Returns:
        (N,); 0 for a sample without another one.

    Example:
        >>> feature_entropy(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor([-0.3466, -0.3466])
    """
    z = normalize(widen(features))
    if len(z) == 1:
        return torch.zeros_like(z[:, 0])
    positions = torch.arange(len(z), device=z.device)

    def nearest(anchors: Tensor, rows: Tensor) -> Tensor:
        return (anchors @ z.T).masked_fill(rows[:, None] == positions, -torch.inf).argmax(1)

    with torch.no_grad():
        neighbor = by_rows(nearest, z, len(z))
    # Found by product, measured by difference: the product of near neighbors has lost their distance.
    return -torch.log(torch.linalg.vector_norm(z - z.index_select(0, neighbor), dim=1) + eps)


class FeatureEntropyLoss(LossTerm):
    """Minus the entropy of unit features, by nearest neighbors (KoLeo): -mean_i log(||z_i - z_NN(i)|| + eps).

    The brake on collapse: added to cross-entropy with a weight of about .05 it keeps features of a class apart, for
    transfer from the encoder; with a frozen frame behind a projection it leaves collapse to the head. Source: the
    Kozachenko-Leonenko estimate as a regularizer in Sablayrolles et al. 2019; against collapse in Harun et al. 2025.
    Its constants are left out. z are the backbone's features at unit length. A feature that equals its neighbor gets
    no gradient: there is no direction to leave by.

    Args:
        eps: Added to the distance: bounds the loss where features coincide.

    Raises:
        ValueError: If ``eps`` is not positive.

    Example:
        >>> FeatureEntropyLoss()
        FeatureEntropyLoss(eps=1e-08)
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        if not 0 < eps < math.inf:
            raise ValueError(
                f"eps must be positive and finite, got {eps}: features that coincide would have an infinite loss"
            )
        self.eps = eps

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG002
        """Return the mean over the batch."""
        return feature_entropy(outputs.features, self.eps).mean()

    def extra_repr(self) -> str:
        """Show eps in the loss's printout."""
        return f"eps={self.eps}"
