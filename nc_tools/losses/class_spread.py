"""The second collapse as a regularizer: class centers far apart."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.heads.normalize import normalize
from nc_tools.losses._class_centers import ClassCenters
from nc_tools.losses.loss_term import LossTerm, widen
from nc_tools.records import Batch, Outputs

# arccos has an infinite slope at +-1; this bounds it by 700.
_GUARD = 1e-6


def centered(centers: Tensor, known: Tensor) -> Tensor:
    """Subtract the mean over the known classes (K, D); rows of the others are 0."""
    mask = known[:, None].to(centers.dtype)
    mean = (centers * mask).sum(0) / mask.sum().clamp(min=1)
    return (centers - mean) * mask


def class_spread(centers: Tensor, known: Tensor) -> Tensor:
    """Minus the mean over classes of the angle to the nearest other class. See :class:`ClassSpreadLoss`.

    Args:
        centers: (K, D).
        known: Which rows count (K,), bool.

    Returns:
        A scalar, in radians; 0 with fewer than two known classes.

    Example:
        >>> round(class_spread(torch.tensor([[1.0], [3.0]]), torch.tensor([True, True])).item(), 2)
        -3.14
    """
    directions = normalize(centered(centers, known))
    pairs = known[:, None] & known & ~torch.eye(len(centers), dtype=torch.bool, device=centers.device)
    cosines = (directions @ directions.T).masked_fill(~pairs, -1.0)
    angles = torch.acos(cosines.amax(1).clamp(-1 + _GUARD, 1 - _GUARD))
    return -torch.where(pairs.any(1), angles, 0).sum() / known.sum().clamp(min=1)


class ClassSpreadLoss(LossTerm):
    """Minimal angle between class centers as a loss (NC2): -mean_k min_{j != k} angle(c_k - c_bar, c_j - c_bar).

    c_k are moving class centers and c_bar is the mean of the classes met so far. Its optimum is the simplex, where all
    angles are the largest possible at once, for tail classes too, which cross-entropy lets run together. Source: Liu et
    al. 2023, with a weight of .1 beside cross-entropy (1.0 on ImageNet-LT). h are the backbone's features, those that
    ``nc/nc2_*`` measures. A gradient reaches them through the batch's share of its centers (see
    :class:`~nc_tools.losses.ClassCenters`), so that a lower momentum makes for a stronger pull.
    Cosines are kept 1e-6 away from +-1, where the arc cosine's slope is infinite.

    Args:
        feature_dim: D; a run fills it in.
        num_classes: K; a run fills it in.
        momentum: Of the centers.

    Raises:
        ValueError: If the momentum lies outside [0, 1).

    Example:
        >>> ClassSpreadLoss(8, 3, momentum=0.5).centers
        ClassCenters(num_classes=3, feature_dim=8, momentum=0.5)
    """

    def __init__(self, feature_dim: int, num_classes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.centers = ClassCenters(num_classes, feature_dim, momentum)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the classes met so far."""
        centers, known, _ = self.centers(widen(outputs.features), batch.labels)
        return class_spread(centers, known)
