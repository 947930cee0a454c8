"""NCI: how well the centered feature points along the vector of its predicted class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.ood.ood_score import OODScore, norms_at_least, require_weight
from nc_tools.ood.training_set import TrainingSet


class NCI(OODScore):
    """Score by the projection of the predicted class's vector on the centered feature, plus the feature's scaled norm.

        w_y . (h - mu) / ||h - mu|| + a ||h||_1,    y = argmax_k z_k,

    mu the mean of all training features. With collapse, centered features point along the class vectors (NC3) and lie
    far from the origin; outliers do neither. Costs O(D) per sample besides the logits. For features of unit length the
    second term says little.

    Fits on the training features, for their mean, and on the weight.

    Source: Liu and Qin (2025, CVPR). a = 1e-4 is the default of the released code, which then tunes it from 1e-4 to .1
    on outliers; nothing is tuned here.

    Args:
        alpha: a, not negative.

    Raises:
        ValueError: If a is negative or not finite.

    Example:
        >>> nci = NCI(alpha=0.0).fit(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.eye(2), torch.tensor([0, 1]),
        ...                          weight=torch.tensor([[-2.0, 0.0], [2.0, 0.0]]))
        >>> nci.score_samples(torch.tensor([[3.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        tensor([2.0000, 1.2000], dtype=torch.float64)
    """

    name = "nci"
    fits_on = ("features", "weight")

    def __init__(self, alpha: float = 1e-4) -> None:
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha must be finite and not negative, got {alpha}")
        self.alpha = alpha

    def _fit(self, train: TrainingSet) -> None:
        self._weight = require_weight(train, "NCI")
        self._mean = train.mean
        self._floor = distance_floor(train)

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:
        centered = features - self._mean
        own = self._weight.index_select(0, logits.argmax(dim=1))
        aligned = (own * centered).sum(dim=1) / norms_at_least(centered, self._floor)
        return aligned + self.alpha * features.abs().sum(dim=1)


def distance_floor(train: TrainingSet) -> float:
    """Return the distance to the mean below which a feature counts as equal to the mean: the rounding error."""
    dtype = torch.finfo(torch.float64)
    return max(float(dtype.eps) * train.spread, math.sqrt(dtype.tiny))
