"""How close a feature lies to the vector of the class that it is taken for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.ood.bank import Bank
from nc_tools.ood.ood_score import OODScore, length, needs_weight


class NCI(OODScore):
    """Projection of the class vector on the centered feature, plus the feature's size.

        w_y . (h - mu) / ||h - mu|| + a ||h||_1,    y = argmax_k z_k,

    mu the mean of all training features. Collapse turns centered features to the class vectors (NC3) and away from the
    origin; an outlier does neither. O(D) a sample beside the logits. Of unit features the second term says little.

    Fits on training features, for their mean, and on the weight.

    Source: Liu and Qin (2025, CVPR). a = 1e-4 is the default of the released code, which then tunes it from 1e-4 to .1
    with outliers in view; nothing is tuned here.

    Args:
        alpha: a, not negative.

    Raises:
        ValueError: If a is negative or not finite.

    Example:
        >>> nci = NCI(alpha=0.0).fit(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.eye(2), torch.tensor([0, 1]),
        ...                          weight=torch.tensor([[-2.0, 0.0], [2.0, 0.0]]))
        >>> nci.score(torch.tensor([[3.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        tensor([2.0000, 1.2000])
    """

    name = "nci"
    fits_on = ("features", "weight")

    def __init__(self, alpha: float = 1e-4) -> None:
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha must be finite and not negative, got {alpha}")
        self.alpha = alpha

    def _fit(self, bank: Bank) -> None:
        self._weight = needs_weight(bank, "NCI")
        self._mean = bank.mean.to(bank.features)
        self._floor = smallest_distance(bank)

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:
        centered = features - self._mean
        own = self._weight.index_select(0, logits.argmax(dim=1))
        near = (own * centered).sum(dim=1) / length(centered, self._floor)
        return near + self.alpha * features.abs().sum(dim=1)


def smallest_distance(bank: Bank) -> float:
    """Return the distance to the mean below which a feature counts as lying on it: its rounding."""
    kind = torch.finfo(bank.features.dtype)
    return max(float(kind.eps) * bank.reach, math.sqrt(kind.tiny))
