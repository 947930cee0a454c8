"""Scores that read the logits alone: largest probability, largest logit, energy, generalized entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.ood.ood_score import OODScore, UndefinedScoreError
from nc_tools.ood.training_set import TrainingSet


class _LogitScore(OODScore):
    """A score that reads only logits: fitting stores the numbers of features and classes, and nothing else."""

    def _fit(self, train: TrainingSet) -> None:
        if train.logits.shape[1] < 2:
            raise UndefinedScoreError(f"{type(self).__name__} needs logits of at least two classes, got one")


class MSP(_LogitScore):
    """Score by the log-odds of the largest softmax probability: log(p / (1 - p)), p = max_k p_k. The usual baseline.

    Log-odds have the order of the probabilities, and so the same AUROC, but do not saturate: in float32 a gap of 17
    between the two largest logits makes the probability exactly 1 (in float64 one of 37), so that all such samples tie.
    Fits on nothing.

    Source: Hendrycks and Gimpel (2017); the released code compares the probability itself.

    Example:
        >>> msp = MSP().fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        >>> msp.score_samples(torch.eye(2), torch.tensor([[0.0, 0.0], [1.0986123, 0.0]])).sigmoid()
        tensor([0.5000, 0.7500], dtype=torch.float64)
    """

    name = "msp"

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return -_log_odds_against(logits)


class MaxLogit(_LogitScore):
    """Score by the largest logit: max_k z_k.

    It keeps the feature norm, which the softmax divides out, and scales to many classes. Features of unit length (a
    cosine or ETF head) have no norm to keep; then it is the largest cosine. Fits on nothing. Source: Hendrycks et al.
    (2022).

    Example:
        >>> max_logit = MaxLogit().fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        >>> max_logit.score_samples(torch.eye(2), 3 * torch.eye(2))
        tensor([3., 3.], dtype=torch.float64)
    """

    name = "max_logit"

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return logits.amax(dim=1)


class Energy(_LogitScore):
    """Score by the negative free energy: T * log(sum_k exp(z_k / T)).

    A smooth maximum of the logits. The scale of a cosine head decides how smooth it is: for unscaled cosines, the score
    is nearly the same for all samples. Fits on nothing. Source: Liu et al. (2020, equation 4, with the opposite sign).

    Args:
        temperature: T, positive; 1 as published.

    Raises:
        ValueError: If T is not positive.

    Example:
        >>> energy = Energy().fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        >>> energy.score_samples(torch.eye(2), torch.tensor([[0.0, 0.0], [0.0, 1.0986123]])).exp()
        tensor([2.0000, 4.0000], dtype=torch.float64)
    """

    name = "energy"

    def __init__(self, temperature: float = 1.0) -> None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.temperature = temperature

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return self.temperature * torch.logsumexp(logits / self.temperature, dim=1)


class GEN(_LogitScore):
    """Score by the negative generalized entropy of the M largest probabilities: -sum_k p_k^g * (1 - p_k)^g.

    Small exponents make small deviations from a confident prediction visible, but only if 1 - p is accurate where p is
    nearly 1. Here 1 - p is the sum of the other probabilities, computed in logarithms. As 1 minus a float32 probability
    it would be 0 from a logit gap of 17 on, where the term (1 - p)^g is still .2. Fits on nothing.

    Source: Liu, Lochman and Zach (2023, equation 4), g = .1 and M = 100 as in the released code.

    Args:
        gamma: g, in (0, 1).
        largest: M; all classes if there are fewer.

    Raises:
        ValueError: If g is outside (0, 1) or M below 1.

    Example:
        >>> GEN().fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1])).score_samples(torch.eye(2), torch.zeros(2, 2))
        tensor([-1.7411, -1.7411], dtype=torch.float64)
    """

    name = "gen"

    def __init__(self, gamma: float = 0.1, largest: int = 100) -> None:
        if not 0 < gamma < 1:
            raise ValueError(f"gamma must lie between 0 and 1, got {gamma}")
        if largest < 1:
            raise ValueError(f"largest is a number of classes and must be at least 1, got {largest}")
        self.gamma, self.largest = gamma, largest

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        top = logits.topk(min(self.largest, logits.shape[1]), dim=1).values
        normalizer = torch.logsumexp(logits, dim=1, keepdim=True)
        log_p = top - normalizer
        # All p but the largest are at most 1/2, so that log(1 - p) is accurate.
        rest = torch.log1p(-log_p[:, 1:].exp())
        first = _log_odds_against(logits) + log_p[:, 0]
        return -(self.gamma * (log_p + torch.cat([first[:, None], rest], dim=1))).exp().sum(dim=1)


def _log_odds_against(logits: Tensor) -> Tensor:
    """Return log((1 - p) / p) of the largest probability p (N,): log sum over the other classes of exp(z_k - z_max)."""
    largest, place = logits.max(dim=1, keepdim=True)
    return torch.logsumexp((logits - largest).scatter(1, place, -torch.inf), dim=1)
