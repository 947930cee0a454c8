"""The third collapse as a regularizer: class vectors along class centers."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.heads.normalize import normalize
from nc_tools.losses._class_centers import ClassCenters
from nc_tools.losses.class_spread import centered
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def class_alignment(weight: Tensor, centers: Tensor, known: Tensor) -> Tensor:
    """Mean over classes of 1 - cos(w_k, c_k - c_bar). See :class:`ClassAlignmentLoss`.

    Args:
        weight: (K, D').
        centers: (K, D').
        known: Which centers count (K,), bool.

    Returns:
        A scalar in [0, 2]; 0 with fewer than two known classes.

    Example:
        >>> w = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> alignment(w, 5 + w, torch.tensor([True, True])).item()
        0.0
    """
    cosines = (normalize(weight) * normalize(centered(centers, known))).sum(1)
    counted = known & (known.sum() > 1)
    return torch.where(counted, 1 - cosines, 0).sum() / counted.sum().clamp(min=1)


class ClassAlignmentLoss(LossTerm):
    """Self-duality as a loss (NC3): mean_k (1 - cos(w_k, c_k - c_bar)), c_k moving class centers.

    Turns class vectors and class centers towards each other, both by gradient: with a fixed frame the features alone
    move, towards a chosen geometry, and unlike in dot regression by their class means, so that samples stay free to
    spread. A measure of collapse made into a loss, not a published method. The centers are kept of the backbone's
    features and go through the head's own projection and normalization before they are compared with its class
    vectors; behind a :class:`~nc_tools.heads.LinearHead` that changes nothing.

    Args:
        feature_dim: D; a run fills it in.
        num_classes: K; a run fills it in.
        momentum: Of the centers (see :class:`~nc_tools.losses.ClassCenters`).

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
        """Return the mean over the classes met so far."""
        centers, known, _ = self.centers(outputs.upcast_features, batch.labels)
        return class_alignment(outputs.weight.to(centers.dtype), outputs.head.embed(centers), known)
