"""Equal angles (NC2) as a loss: class centers far apart."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses._class_centers import ClassCenters
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs

# Distance of cosines from +-1, where the slope of arccos is infinite: it bounds the slope by about 700.
_GUARD = 1e-6


def centered(centers: Tensor, has_center: Tensor) -> Tensor:
    """Return the class centers minus their mean (K, D); rows of classes without a center are 0."""
    mask = has_center[:, None].to(centers.dtype)
    mean = (centers * mask).sum(0) / mask.sum().clamp(min=1)
    return (centers - mean) * mask


def class_spread(centers: Tensor, has_center: Tensor) -> Tensor:
    """Return minus the mean over classes of the angle to the nearest other class. See :class:`ClassSpreadLoss`.

    Args:
        centers: (K, D).
        has_center: Which classes have a center (K,), bool. The others do not count.

    Returns:
        A scalar, in radians; 0 with fewer than two centers.

    Example:
        >>> round(class_spread(torch.tensor([[1.0], [3.0]]), torch.tensor([True, True])).item(), 2)
        -3.14
    """
    directions = normalize(centered(centers, has_center))
    pairs = has_center[:, None] & has_center & ~torch.eye(len(centers), dtype=torch.bool, device=centers.device)
    cosines = (directions @ directions.T).masked_fill(~pairs, -1.0)
    angles = torch.acos(cosines.amax(1).clamp(-1 + _GUARD, 1 - _GUARD))
    return -torch.where(pairs.any(1), angles, 0).sum() / has_center.sum().clamp(min=1)


class ClassSpreadLoss(LossTerm):
    """Equal angles (NC2) as a loss: minus the mean over classes of the angle to the nearest other class center.

    -mean_k min_{j != k} angle(c_k - c_bar, c_j - c_bar), with c_k the class centers, which are moving averages.

    c_bar is the mean of the centers. The optimum is the simplex, where all angles have their largest common value, also
    those of small classes, which can merge under cross-entropy. Source: Liu et al. 2023, with a weight of .1 beside
    cross-entropy (1.0 on ImageNet-LT). The centers are those of the backbone's features, which ``nc/nc2_*`` measures.
    Gradients reach the features through the share of the batch in the centers (see
    :class:`~nc_tools.losses.ClassCenters`), so they are larger with a lower momentum. Cosines are kept 1e-6 away from
    +-1, where the slope of the arc cosine is infinite.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features.

    Args:
        feature_dim: D. A run fills it in.
        num_classes: K. A run fills it in.
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
        """Return minus the mean angle over the classes that have a center."""
        centers, has_center, _ = self.centers(at_least_float32(outputs.features), batch.labels, batch.kept)
        return class_spread(centers, has_center)
