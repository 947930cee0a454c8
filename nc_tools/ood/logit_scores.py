"""Scores that read the logits alone: largest probability, largest logit, energy, generalized entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.ood.bank import Bank
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError


class _OfLogits(OODScore):
    """Nothing to fit but the sizes."""

    def _fit(self, bank: Bank) -> None:
        if bank.logits.shape[1] < 2:
            raise UndefinedScoreError(f"{type(self).__name__} compares classes and needs two, got logits of one")


class MSP(_OfLogits):
    """Largest softmax probability, as its log-odds: log(p / (1 - p)), p = max_k p_k. The anchor of the field.

    The log-odds keep the order of the probabilities, and so every AUROC, but do not saturate: in float32 a gap of 17
    between the two largest logits makes the probability exactly 1, and all such samples ties. Fits on nothing.

    Source: Hendrycks and Gimpel (2017); the released code compares the probability itself.

    Example:
        >>> msp = MSP().fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        >>> msp.score(torch.eye(2), torch.tensor([[0.0, 0.0], [1.0986123, 0.0]])).sigmoid()
        tensor([0.5000, 0.7500])
    """

    name = "msp"

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return -_others(logits)


class MaxLogit(_OfLogits):
    """Largest logit: max_k z_k.

    Keeps the feature norm that the softmax divides out, and scales to many classes. Of unit features (a cosine or ETF
    head) there is no norm left, and it is the largest cosine. Fits on nothing. Source: Hendrycks et al. (2022).

    Example:
        >>> MaxLogit().fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1])).score(torch.eye(2), 3 * torch.eye(2))
        tensor([3., 3.])
    """

    name = "max_logit"

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return logits.amax(dim=1)


class Energy(_OfLogits):
    """Negative free energy: T log sum_k exp(z_k / T).

    A soft largest logit. The scale of a cosine head decides how soft: of unscaled cosines it is nearly the same for all
    samples. Fits on nothing. Source: Liu et al. (2020, equation 4, with the sign turned).

    Args:
        temperature: T, positive; 1 as published.

    Raises:
        ValueError: If T is not positive.

    Example:
        >>> energy = Energy().fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        >>> energy.score(torch.eye(2), torch.tensor([[0.0, 0.0], [0.0, 1.0986123]])).exp()
        tensor([2., 4.])
    """

    name = "energy"

    def __init__(self, temperature: float = 1.0) -> None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.temperature = temperature

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        return self.temperature * torch.logsumexp(logits / self.temperature, dim=1)


class GEN(_OfLogits):
    """Generalized entropy of the largest probabilities: - sum over the M largest of p^g (1 - p)^g.

    Small exponents lift tiny deviations from a confident prediction. They do so only if 1 - p is known where p is
    nearly 1: it is summed from the other classes here, in logarithms. As 1 minus a float32 probability it is 0 from a
    logit gap of 17 on, where the true term is still .2. Fits on nothing.

    Source: Liu, Lochman and Zach (2023, equation 4), g = .1 and M = 100 as in the released code.

    Args:
        gamma: g, in (0, 1).
        largest: M; all classes where there are fewer.

    Raises:
        ValueError: If g is outside (0, 1) or M below 1.

    Example:
        >>> GEN().fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1])).score(torch.eye(2), torch.zeros(2, 2))
        tensor([-1.7411, -1.7411])
    """

    name = "gen"

    def __init__(self, gamma: float = 0.1, largest: int = 100) -> None:
        if not 0 < gamma < 1:
            raise ValueError(f"gamma must lie between 0 and 1, got {gamma}")
        if largest < 1:
            raise ValueError(f"largest is a number of classes and must be at least 1, got {largest}")
        self.gamma, self.largest = gamma, largest

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        top = logits.topk(min(self.largest, logits.shape[1]), dim=1).values
        normalizer = torch.logsumexp(logits, dim=1, keepdim=True)
        log_p = top - normalizer
        # Behind the first, p is at most 1/2.
        rest = torch.log1p(-log_p[:, 1:].exp())
        first = _others(logits) + log_p[:, 0]
        return -(self.gamma * (log_p + torch.cat([first[:, None], rest], dim=1))).exp().sum(dim=1)


def _others(logits: Tensor) -> Tensor:
    """Return log sum over all classes but the largest of exp(z_k - z_max) (N,), which is log((1 - p) / p)."""
    largest, place = logits.max(dim=1, keepdim=True)
    return torch.logsumexp((logits - largest).scatter(1, place, -torch.inf), dim=1)
