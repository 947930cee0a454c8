"""Mahalanobis distance to the nearest class mean, alone or minus the distance to the whole training set."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.ood.ood_score import OODScore, UndefinedScoreError
from nc_tools.ood.training_set import TrainingSet
from nc_tools.ood.whitening import whitening


class Mahalanobis(OODScore):
    """Score by minus the squared Mahalanobis distance to the nearest class mean, with one covariance for all classes.

        -min_k (h - mu_k)^T S_W^+ (h - mu_k),    S_W = sum_i (h_i - mu_y)(h_i - mu_y)^T / N.

    One Gaussian per class, all with the same covariance. Directions in which the training classes do not vary are
    ignored (a pseudo-inverse, see :func:`~nc_tools.ood.whitening.whitening`): use ViM or KNN to detect samples outside
    the span of the training features. Classes without a sample have no mean and are left out. The covariance is that of
    all samples together, so frequent classes have more influence on it.

    Fits on training features and labels.

    Source: Lee, Lee, Lee and Shin (2018, equations 1 and 2): the last layer alone, without their input perturbation and
    without their regression over layers, which is tuned on outliers.

    Example:
        >>> x = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -2.0], [0.0, 2.0]])
        >>> score = Mahalanobis().fit(x, torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
        >>> score.score_samples(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.zeros(3, 2)).round().tolist()
        [-0.0, -8.0, -2.0]
    """

    name = "mahalanobis"
    fits_on = ("features", "labels")

    def _fit(self, train: TrainingSet) -> None:
        self._to_classes = _MahalanobisDistances(train, train.means, train.within, type(self).__name__)

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return -self._to_classes.distances(features).amin(dim=1)

    def _values_per_sample(self) -> int:
        return self._to_classes.values_per_sample


class RMDS(OODScore):
    """Score by minus the relative Mahalanobis distance: to the nearest class, minus that to the whole training set.

        -min_k [MD_k(h) - MD_0(h)],    MD_0(h) = (h - mu)^T S_T^+ (h - mu),

    mu and S_T the mean and covariance of all training samples. Directions in which all images vary alike cancel, which
    helps with outliers that resemble the training images. Fits on training features and labels.

    Source: Ren et al. (2021, equation 3).

    Example:
        >>> x = torch.tensor([[-1.0], [1.0], [3.0], [5.0]])
        >>> rmds = RMDS().fit(x, torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))
        >>> rmds.score_samples(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 2))  # -0 + 4/5, -4 + 0
        tensor([ 0.8000, -4.0000])
    """

    name = "rmds"
    fits_on = ("features", "labels")

    def _fit(self, train: TrainingSet) -> None:
        self._to_classes = _MahalanobisDistances(train, train.means, train.within, "RMDS")
        self._to_all = _MahalanobisDistances(train, train.mean[None], train.total, "RMDS")

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return self._to_all.distances(features)[:, 0] - self._to_classes.distances(features).amin(dim=1)

    def _values_per_sample(self) -> int:
        return self._to_classes.values_per_sample


class _MahalanobisDistances:
    """Squared Mahalanobis distances to several centers with one covariance.

    Args:
        train: The training set.
        centers: (K', D), float64.
        covariance: (D, D), float64.
        name: Name of the score, for the error message.

    Raises:
        UndefinedScoreError: If the covariance is zero.
    """

    def __init__(self, train: TrainingSet, centers: Tensor, covariance: Tensor, name: str) -> None:
        whitener = whitening(covariance, train.features.dtype)
        if whitener.shape[1] == 0:
            raise UndefinedScoreError(
                f"{name} divides by the spread of the training features about their class means, and it is zero: use "
                "another score, because the features are constant, or every class has one sample"
            )
        # Distances do not depend on the origin; about the mean, the products below cancel least.
        self._origin = train.mean.to(train.features)
        self._whitener = whitener.to(train.features)
        self._centers = ((centers - train.mean) @ whitener).to(train.features)
        self._squares = self._centers.square().sum(dim=1)
        self.values_per_sample = max(len(centers), len(whitener))

    def distances(self, features: Tensor) -> Tensor:
        """Return the squared distances of samples (N, D) to every center (N, K')."""
        x = (features - self._origin) @ self._whitener
        cross = torch.addmm(self._squares, x, self._centers.T, alpha=-2)
        return cross.add_(x.square().sum(dim=1, keepdim=True)).clamp_(min=0)
