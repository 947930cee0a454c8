"""Feature entropy (KoLeo): spread features over the sphere, against collapse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses._pairwise import by_rows
from nc_tools.losses._rows import kept_mean
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def feature_entropy(features: Tensor, eps: float = 1e-8, kept: Tensor | None = None) -> Tensor:
    """Return -log(distance to the nearest neighbor + eps) of each feature. See :class:`FeatureEntropyLoss`.

    Args:
        features: (N, D); scaled to unit length here.
        eps: Added to the distance.
        kept: Which samples count (N,), bool; the others are nobody's neighbor. None: all.

    Returns:
        (N,); 0 for a single sample.

    Example:
        >>> feature_entropy(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor([-0.3466, -0.3466])
    """
    z = normalize(at_least_float32(features))
    if len(z) == 1:
        return torch.zeros_like(z[:, 0])
    positions = torch.arange(len(z), device=z.device)

    def nearest(anchors: Tensor, rows: Tensor) -> Tensor:
        excluded = rows[:, None] == positions
        return (anchors @ z.T).masked_fill(excluded if kept is None else excluded | ~kept, -torch.inf).argmax(1)

    with torch.no_grad():
        neighbor = by_rows(nearest, z, len(z))
    # Dot products find the neighbor, but the distance is that of the difference: from the dot product of two near
    # vectors it would lose its digits.
    values = -torch.log(torch.linalg.vector_norm(z - z.index_select(0, neighbor), dim=1) + eps)
    return values if kept is None else torch.where(kept & (kept.sum() > 1), values, 0)


class FeatureEntropyLoss(LossTerm):
    """Minus the entropy of unit features, from nearest neighbors (KoLeo): -mean_i log(||z_i - z_NN(i)|| + eps).

    It acts against collapse. Added to cross-entropy with a weight of about .05 it keeps the features of a class apart,
    for transfer from the encoder; with a frozen frame behind a projection, collapse then happens in the head alone.
    Source: the Kozachenko-Leonenko estimate of the entropy, used as a regularizer by Sablayrolles et al. 2019, and
    against collapse by Harun et al. 2025. The constants of the estimate are left out. z are the backbone's features at
    unit length. A feature that equals its neighbor gets no gradient, because all directions lead away from it alike.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features.

    Args:
        eps: Added to the distance, which bounds the loss where features are equal.

    Raises:
        ValueError: If ``eps`` is not positive and finite.

    Example:
        >>> FeatureEntropyLoss()
        FeatureEntropyLoss(eps=1e-08)
    """

    over_batch = True

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        if not 0 < eps < math.inf:
            raise ValueError(f"eps must be positive and finite, got {eps}. At 0 equal features have an infinite loss.")
        self.eps = eps

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count."""
        return kept_mean(feature_entropy(outputs.features, self.eps, batch.kept), batch.kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"eps={self.eps}"
