"""Mahalanobis distance to the nearest class mean, and the same relative to the whole training set."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.ood.bank import Bank
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError
from nc_tools.ood.whitening import whitening


class Mahalanobis(OODScore):
    """Minus the squared distance to the nearest class mean, in the classes' common covariance.

        -min_k (h - mu_k)^T S_W^+ (h - mu_k),    S_W = sum_i (h_i - mu_y)(h_i - mu_y)^T / N.

    One Gaussian a class, all of one shape. Directions in which the training classes do not vary count nothing (a
    pseudo-inverse, see :func:`~nc_tools.ood.whitening.whitening`): what leaves the training features' span is for ViM
    or KNN to see. Classes without a sample have no mean and are left out; the estimate is of all samples together, so
    frequent classes decide the shape.

    Fits on training features and labels.

    Source: Lee, Lee, Lee and Shin (2018, equations 1 and 2): the last layer alone, without their input perturbation and
    their regression over layers, which is tuned on outliers.

    Example:
        >>> x = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -2.0], [0.0, 2.0]])
        >>> score = Mahalanobis().fit(x, torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
        >>> score.score(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.zeros(3, 2)).round().tolist()
        [-0.0, -8.0, -2.0]
    """

    name = "mahalanobis"
    fits_on = ("features", "labels")

    def _fit(self, bank: Bank) -> None:
        self._nearest = Gaussians(bank, bank.means, bank.within, type(self).__name__)

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return -self._nearest.distances(features).amin(dim=1)

    def _columns(self) -> int:
        return self._nearest.number


class RMDS(OODScore):
    """Relative Mahalanobis distance: that to the nearest class less that to the whole training set.

        -min_k [MD_k(h) - MD_0(h)],    MD_0(h) = (h - mu)^T S_T^+ (h - mu),

    mu and S_T of all training samples. Directions in which all images vary alike drop out, which helps against near
    sets. Fits on training features and labels.

    Source: Ren et al. (2021, equation 3).

    Example:
        >>> x = torch.tensor([[-1.0], [1.0], [3.0], [5.0]])
        >>> rmds = RMDS().fit(x, torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))
        >>> rmds.score(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 2))  # -0 + 4/5, -4 + 0
        tensor([ 0.8000, -4.0000])
    """

    name = "rmds"
    fits_on = ("features", "labels")

    def _fit(self, bank: Bank) -> None:
        self._nearest = Gaussians(bank, bank.means, bank.within, "RMDS")
        self._whole = Gaussians(bank, bank.mean[None], bank.total, "RMDS")

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return self._whole.distances(features)[:, 0] - self._nearest.distances(features).amin(dim=1)

    def _columns(self) -> int:
        return self._nearest.number


class Gaussians:
    """Squared Mahalanobis distances to several centers in one covariance.

    Args:
        bank: What it is fitted on.
        centers: (K', D), float64.
        covariance: (D, D), float64.
        name: Who asks, for the message.

    Raises:
        UndefinedScoreError: If the covariance is zero.
    """

    def __init__(self, bank: Bank, centers: Tensor, covariance: Tensor, name: str) -> None:
        map_ = whitening(covariance, bank.features.dtype)
        if map_.shape[1] == 0:
            raise UndefinedScoreError(
                f"{name} divides by the spread of the training features about their class means, and there is none: "
                "the features are constant, or every class has one sample"
            )
        # About the mean, which changes no distance, the products below cancel least.
        self._origin = bank.mean.to(bank.features)
        self._map = map_.to(bank.features)
        self._centers = ((centers - bank.mean) @ map_).to(bank.features)
        self._squares = self._centers.square().sum(dim=1)
        self.number = max(len(centers), len(map_))

    def distances(self, features: Tensor) -> Tensor:
        """Return them of samples (N, D) as (N, K')."""
        x = (features - self._origin) @ self._map
        cross = torch.addmm(self._squares, x, self._centers.T, alpha=-2)
        return cross.add_(x.square().sum(dim=1, keepdim=True)).clamp_(min=0)
