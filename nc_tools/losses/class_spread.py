"""The second collapse as a regulariser: class centres far apart."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.heads.unit import unit
from nc_tools.losses.base import LossTerm, at_least_float32
from nc_tools.losses.class_centres import ClassCentres
from nc_tools.records import Batch, Outputs

# arccos has an infinite slope at +-1; this bounds it by 700.
_GUARD = 1e-6


def centred(centres: Tensor, known: Tensor) -> Tensor:
    """Subtract the mean over the known classes (K, D); rows of the others are 0."""
    mask = known[:, None].to(centres.dtype)
    mean = (centres * mask).sum(0) / mask.sum().clamp(min=1)
    return (centres - mean) * mask


def class_spread(centres: Tensor, known: Tensor) -> Tensor:
    """Minus the mean over classes of the angle to the nearest other class. See :class:`ClassSpread`.

    Args:
        centres: (K, D).
        known: Which rows count (K,), bool.

    Returns:
        A scalar, in radians; 0 with fewer than two known classes.

    Example:
        >>> round(class_spread(torch.tensor([[1.0], [3.0]]), torch.tensor([True, True])).item(), 2)
        -3.14
    """
    directions = unit(centred(centres, known))
    pairs = known[:, None] & known & ~torch.eye(len(centres), dtype=torch.bool, device=centres.device)
    cosines = (directions @ directions.T).masked_fill(~pairs, -1.0)
    angles = torch.acos(cosines.amax(1).clamp(-1 + _GUARD, 1 - _GUARD))
    return -torch.where(pairs.any(1), angles, 0).sum() / known.sum().clamp(min=1)


class ClassSpread(LossTerm):
    """Minimal angle between class centres as a loss (NC2): -mean_k min_{j != k} angle(c_k - c_bar, c_j - c_bar).

    c_k are moving class centres and c_bar is the mean of the classes met so far. Its optimum is the simplex, where all
    angles are the largest possible at once, for tail classes too, which cross-entropy lets run together. Source: Liu et
    al. 2023, with a weight of .1 beside cross-entropy (1.0 on ImageNet-LT). h are the backbone's features, those that
    ``nc/nc2_*`` measures. A gradient reaches them through the batch's share of its centres (see
    :class:`~nc_tools.losses.ClassCentres`), so that a lower momentum makes for a stronger pull.
    Cosines are kept 1e-6 away from +-1, where the arc cosine's slope is infinite.

    Args:
        feature_dim: D; a run fills it in.
        num_classes: K; a run fills it in.
        momentum: Of the centres.

    Raises:
        ValueError: If the momentum lies outside [0, 1).

    Example:
        >>> ClassSpread(8, 3, momentum=0.5).centres
        ClassCentres(num_classes=3, feature_dim=8, momentum=0.5)
    """

    def __init__(self, feature_dim: int, num_classes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.centres = ClassCentres(num_classes, feature_dim, momentum)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the classes met so far."""
        centres, known, _ = self.centres(at_least_float32(outputs.features), batch.labels)
        return class_spread(centres, known)
