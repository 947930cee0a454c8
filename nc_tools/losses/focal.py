"""Focal loss."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from nc_tools.losses._one_softmax import OneSoftmaxLoss, of_nll
from nc_tools.losses._rows import Reduction, rows_of


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, reduction: Reduction = "none") -> Tensor:
    """Return the cross-entropy times (1 - p_y)^gamma, for each sample or reduced. See :class:`FocalLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        gamma: At least 0.
        reduction: "none", "mean" or "sum".

    Returns:
        (N,), or a scalar.

    Example:
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)  # log(2) / 2
        tensor([0.3466])
    """
    formula = partial(_focal, gamma=gamma)
    return rows_of(logits, labels).apply(lambda z, y, r: of_nll(z, y, formula, r), reduction)


def _focal(nll: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    # 1 - p_y without cancellation. The floor keeps the slope of the power finite where gamma < 1 and p_y is 1.
    missing = -torch.expm1(-nll)
    floored = missing.clamp(min=torch.finfo(nll.dtype).tiny)
    factor = floored.pow(gamma)
    value = factor * nll
    return value, factor.addcmul(1 - missing, value / floored, value=gamma)


class FocalLoss(OneSoftmaxLoss):
    """Focal loss: -(1 - p_y)^gamma log p_y.

    It gives less weight to samples that are already right. In classification it mostly lowers overconfidence (Mukhoti
    et al. 2020); on imbalanced data it is a usual baseline. Source: Lin et al. 2017, eq. 4, with a softmax instead of
    sigmoids and without the class weights alpha, for which see :class:`~nc_tools.losses.ClassBalancedLoss`.

    Args:
        gamma: At least 0. 0 is cross-entropy; 1 to 3 are usual.

    Raises:
        ValueError: If gamma is negative or not finite.

    Example:
        >>> FocalLoss()(torch.zeros(1, 2), torch.tensor([0]))  # log(2) / 4
        tensor(0.1733)
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma must be finite and not negative, got {gamma}")
        self.gamma = gamma

    def formula(self, nll: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative for each negative log-likelihood."""
        return _focal(nll, self.gamma)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"gamma={self.gamma}"
