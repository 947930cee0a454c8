"""Focal loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.losses._one_softmax import Reduction, SurpriseFormula, of_surprise
from nc_tools.losses.per_sample import PerSampleLoss
from nc_tools.records import Batch, Outputs


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, reduction: Reduction = "none") -> Tensor:
    """Cross-entropy times (1 - p_y)^gamma, per sample or as their mean. See :class:`FocalLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        gamma: At least 0.
        reduction: "none" or "mean".

    Returns:
        (N,), or a scalar.

    Example:
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)  # log(2) / 2
        tensor([0.3466])
    """
    return of_surprise(logits, labels, _focal(gamma), reduction)


def _focal(gamma: float) -> SurpriseFormula:
    def formula(s: Tensor) -> tuple[Tensor, Tensor]:
        # 1 - p_y without cancellation. The floor keeps the power's slope finite below gamma = 1 when p_y reaches 1.
        missing = -torch.expm1(-s)
        floored = missing.clamp(min=torch.finfo(s.dtype).tiny)
        factor = floored.pow(gamma)
        value = factor * s
        return value, factor.addcmul(1 - missing, value / floored, value=gamma)

    return formula


class FocalLoss(PerSampleLoss):
    """Focal loss: -(1 - p_y)^gamma log p_y.

    Turns away from samples that are already right. In classification it mostly lowers over-confidence (Mukhoti et al.
    2020); on imbalanced data it is a usual baseline. Source: Lin et al. 2017, eq. 4, over a softmax instead of
    sigmoids, without the class weights alpha: those are :class:`~nc_tools.losses.ClassBalancedLoss`.

    Args:
        gamma: At least 0, where it is cross-entropy; 1 to 3 are usual.

    Raises:
        ValueError: If gamma is negative.

    Example:
        >>> FocalLoss()
        FocalLoss(gamma=2.0)
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma must be a number from 0 (cross-entropy) on, got {gamma}")
        self.gamma = gamma

    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the focal loss of each sample (N,)."""
        return focal_loss(outputs.logits, batch.labels, self.gamma)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return focal_loss(outputs.logits, batch.labels, self.gamma, "mean")

    def extra_repr(self) -> str:
        """Show gamma in the loss's printout."""
        return f"gamma={self.gamma}"
