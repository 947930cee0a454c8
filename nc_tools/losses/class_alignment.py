"""Self-duality (NC3) as a loss: class vectors in the directions of the class centers."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.heads.normalize import normalize
from nc_tools.losses._class_centers import ClassCenters
from nc_tools.losses.class_spread import centered
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def class_alignment(weight: Tensor, centers: Tensor, has_center: Tensor) -> Tensor:
    """Return the mean of 1 - cos(class vector, centered class center) over classes. See :class:`ClassAlignmentLoss`.

    Args:
        weight: (K, D').
        centers: (K, D').
        has_center: Which classes have a center (K,), bool. The others do not count.

    Returns:
        A scalar in [0, 2]; 0 with fewer than two centers.

    Example:
        >>> w = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> class_alignment(w, 5 + w, torch.tensor([True, True])).item()
        0.0
    """
    cosines = (normalize(weight) * normalize(centered(centers, has_center))).sum(1)
    counted = has_center & (has_center.sum() > 1)
    return torch.where(counted, 1 - cosines, 0).sum() / counted.sum().clamp(min=1)


class ClassAlignmentLoss(LossTerm):
    """Self-duality (NC3) as a loss: the mean over classes of 1 - cos(w_k, c_k - c_bar), with class centers c_k.

    Its gradient turns class vectors and class centers toward each other. With a fixed frame only the features move,
    toward a chosen geometry. Dot regression moves each feature; this loss moves the class means, so the samples of a
    class stay free to spread. It is a measure of collapse used as a loss, not a published method. The centers are those
    of the backbone's features. They go through the head's projection and normalization before they are compared with
    its class vectors, which changes nothing for a :class:`~nc_tools.heads.LinearHead`.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features and class vectors.

    Args:
        feature_dim: D. A run fills it in.
        num_classes: K. A run fills it in.
        momentum: Of the centers: see :class:`~nc_tools.losses.ClassCenters`.

    Raises:
        ValueError: If the momentum lies outside [0, 1).

    Example:
        >>> ClassAlignmentLoss(8, 3).centers.momentum
        0.9
    """

    def __init__(self, feature_dim: int, num_classes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.centers = ClassCenters(num_classes, feature_dim, momentum)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss over the classes that have a center."""
        centers, has_center, _ = self.centers(outputs.upcast_features, batch.labels, batch.kept)
        return class_alignment(outputs.weight.to(centers.dtype), outputs.head.embed(centers), has_center)
