"""NECO: how much of a feature lies in the principal space of the training features."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.whitening import constant_deviation, principal_directions
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError, norms_at_least
from nc_tools.ood.training_set import TrainingSet


class NECO(OODScore):
    """Score by the share of a feature in the principal space of the training features: ||P h|| / ||h||, in [0, 1].

    Collapsed classes span K - 1 directions about their common mean, and outliers tend to be orthogonal to them (NC5).
    Each dimension of h is standardized with its mean and standard deviation over the training set (a constant one is
    only centered). P holds the first d principal directions of the standardized features.

    Fits on the training features, and on the labels for K alone, the number of classes that have samples.

    Source: Ben Ammar et al. (2024, equation 6). The equation takes h as it is; the released code standardizes it, and
    the published results were made with that. For some transformers it also multiplies by the largest logit: multiply
    by :class:`MaxLogit` yourself. They tuned d for each model on outliers; here it is K - 1, which collapse predicts,
    and nothing is tuned.

    Args:
        dims: d, from 1 to D - 1, or None for K - 1.

    Raises:
        ValueError: If d is below 1.

    Example:
        >>> x = torch.tensor([[3.0, 0.1], [3.0, -0.1], [-3.0, 0.1], [-3.0, -0.1]])
        >>> x = torch.cat([x, x + torch.tensor([[1.0, 0.1], [1.0, 0.1], [-1.0, -0.1], [-1.0, -0.1]])])
        >>> neco = NECO(dims=1).fit(x, torch.zeros(8, 2), torch.tensor([0, 0, 1, 1]).repeat(2))
        >>> inside, outside = neco.score_samples(torch.tensor([[4.0, 0.2], [4.0, -0.2]]), torch.zeros(2, 2))
        >>> bool(inside > outside)
        True
    """

    name = "neco"
    fits_on = ("features", "labels")
    reads_features_alone = True

    def __init__(self, dims: int | None = None) -> None:
        if dims is not None and dims < 1:
            raise ValueError(f"dims is a number of directions and must be at least 1, got {dims}")
        self.dims = dims

    def _fit(self, train: TrainingSet) -> None:
        width, num_classes = train.features.shape[1], len(train.present)
        dims = num_classes - 1 if self.dims is None else self.dims
        deviation = train.total.diagonal().clamp(min=0).sqrt()
        varies = deviation > constant_deviation(train.means)
        deviation = torch.where(varies, deviation, 1.0)
        if not 1 <= dims < width or not bool(varies.any()):
            raise UndefinedScoreError(
                f"NECO needs features that differ and dims from 1 to {width - 1}, got constant features or dims={dims} "
                f"({num_classes} classes): set dims, or use another score"
            )
        vectors = principal_directions(train.total / torch.outer(deviation, deviation))[1]
        self._mean, self._inverse, self._principal = train.mean, deviation.reciprocal(), vectors[:, :dims]
        self._floor = torch.finfo(torch.float64).eps * width**0.5

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        x = (features - self._mean) * self._inverse
        inside: Tensor = torch.linalg.vector_norm(x @ self._principal, dim=1)
        return inside / norms_at_least(x, self._floor)
