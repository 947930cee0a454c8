"""Mahalanobis distance to the nearest class mean, alone or minus the distance to the whole training set."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.whitening import whitening
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError
from nc_tools.ood.training_set import TrainingSet


class Mahalanobis(OODScore):
    """Score by minus the squared Mahalanobis distance to the nearest class mean, with one covariance for all classes.

        -min_k (h - mu_k)^T S_W^+ (h - mu_k),    S_W = sum_i (h_i - mu_y)(h_i - mu_y)^T / N.

    One Gaussian per class, all with the same covariance. Directions in which the training samples do not vary about
    their class means are ignored (a pseudo-inverse): use ViM or KNN to detect samples outside the span of the training
    features. Directions that vary little count in full, because outliers often differ there. A direction is left out
    only if its standard deviation, for features scaled to unit variance, is below a millionth of the largest: that is
    the rounding of float32. Classes without a sample have no mean and are left out. The covariance is that of all
    samples together, so frequent classes have more influence on it.

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
    reads_features_alone = True

    def _fit(self, train: TrainingSet) -> None:
        self._classes = _WhitenedClasses(train, type(self).__name__)

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return -self._classes.nearest(self._classes.whitened(features))

    def _values_per_sample(self) -> int:
        return self._classes.values_per_sample


class RMDS(OODScore):
    """Score by minus the relative Mahalanobis distance: to the nearest class, minus that to the whole training set.

        -min_k [MD_k(h) - MD_0(h)],    MD_0(h) = (h - mu)^T S_T^-1 (h - mu),

    mu and S_T the mean and covariance of all training samples. Directions in which all images vary alike cancel, which
    helps with outliers that resemble the training images. Both terms use the same directions, those in which samples
    vary about their class means: a direction that only one term used would not cancel. Fits on training features and
    labels.

    Since S_T = S_W + S_B, MD_0 needs no inverse of its own. With A A^T = S_W^+, let U diag(s) V^T be the SVD of the
    matrix with the columns sqrt(n_k / N) A^T (mu_k - mu). Then the covariance of A^T h is I + U diag(s^2) U^T.

    Source: Ren et al. (2021, equation 3).

    Example:
        >>> x = torch.tensor([[-1.0], [1.0], [3.0], [5.0]])
        >>> rmds = RMDS().fit(x, torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))
        >>> rmds.score_samples(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 2))  # -0 + 4/5, -4 + 0
        tensor([ 0.8000, -4.0000], dtype=torch.float64)
    """

    name = "rmds"
    fits_on = ("features", "labels")
    reads_features_alone = True

    def _fit(self, train: TrainingSet) -> None:
        self._classes = _WhitenedClasses(train, "RMDS")
        weighted = (self._classes.centers * train.shares.sqrt()[:, None]).T
        self._between, sizes, _ = torch.linalg.svd(weighted, full_matrices=False)
        self._change = (1 + sizes.square()).rsqrt() - 1

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        x = self._classes.whitened(features)
        whitened_by_all: Tensor = x + (x @ self._between * self._change) @ self._between.T
        return whitened_by_all.square().sum(dim=1) - self._classes.nearest(x)

    def _values_per_sample(self) -> int:
        return self._classes.values_per_sample


class _WhitenedClasses:
    """The class means and the samples in coordinates in which the within-class covariance is the identity.

    Args:
        train: The training set.
        name: Name of the score, for the error message.

    Raises:
        UndefinedScoreError: If the covariance is zero.
    """

    def __init__(self, train: TrainingSet, name: str) -> None:
        self._whitener = whitening(train.within, train.means)
        if self._whitener.shape[1] == 0:
            raise UndefinedScoreError(
                f"{name} cannot be fitted: the training features do not vary within their classes, because they are "
                "constant or every class has one sample. Use another score"
            )
        # Distances do not depend on the origin. About the mean, the products below lose the fewest digits.
        self._origin = train.mean
        self.centers = (train.means - train.mean) @ self._whitener
        self._halves = self.centers.square().sum(dim=1) / 2
        self.values_per_sample = max(len(self.centers), len(self._whitener))

    def whitened(self, features: Tensor) -> Tensor:
        """Return samples (N, D) in the coordinates of ``centers`` (N, r)."""
        whitened: Tensor = (features - self._origin) @ self._whitener
        return whitened

    def nearest(self, x: Tensor) -> Tensor:
        """Return the squared distance of whitened samples (N, r) to the nearest class mean (N,)."""
        nearest = torch.addmm(self._halves, x, self.centers.T, beta=-1).argmax(dim=1)
        # Products find the nearest mean. The distance is computed from the difference, which loses fewer digits.
        distances: Tensor = (x - self.centers[nearest]).square().sum(dim=1)
        return distances
