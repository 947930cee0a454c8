"""What every out-of-distribution score promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.ood.bank import Bank, checked_queries

# Entries of the largest intermediate of one block of queries: 128 MB in float32.
_ENTRIES = 1 << 25


class UndefinedScoreError(ValueError):
    """A score that this training set or this head does not define; reports leave it out."""


class OODScore(ABC):
    """How much a sample looks like the training set; **higher is in-distribution**, for every score.

    A score is made with its settings, fitted on the training set once, and then asked about any number of sets. What it
    is fitted on is in :attr:`fits_on`, and nothing else is looked at; where that is empty, fitting only learns the
    sizes. Features are those that enter the head's product (``embedded`` for a head that projects or normalizes),
    taken in eval mode without augmentation. Bias-free heads and frozen frames are welcome: give ``bias=None`` and
    whatever tensor the class vectors are in.

    A subclass names itself, says what it fits on and implements :meth:`_fit` and :meth:`_score`.

    Example:
        >>> from nc_tools.ood import Energy
        >>> train = torch.eye(2), torch.eye(2), torch.tensor([0, 1])
        >>> Energy().fit(*train).score(torch.eye(2), torch.tensor([[0.0, 0.0], [9.0, 0.0]])).tolist()
        [0.6931471824645996, 9.000123023986816]
    """

    name: ClassVar[str]
    fits_on: ClassVar[tuple[str, ...]] = ()

    _sizes: tuple[int, int] | None = None
    _like: Tensor

    def fit(
        self,
        features: Tensor,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Self:
        """Fit on a training set.

        Args:
            features: (N, D), as they enter the head's product.
            logits: (N, K).
            labels: (N,), integers in [0, K).
            weight: (K, D), such that logits = features @ weight.T + bias, its scale included; None where the head is
                not of that form.
            bias: (K,) or None.

        Returns:
            Itself.

        Raises:
            TypeError: If features or logits are not floating-point, or labels not integers.
            ValueError: If shapes do not fit, there is no sample, or values are not finite.
            UndefinedScoreError: If these data or this head do not define the score.
        """
        return self.fit_bank(Bank.checked(features, logits, labels, weight, bias))

    def fit_bank(self, bank: Bank) -> Self:
        """Fit on a training set that several scores share, so that its moments are computed once."""
        with measuring_precision(bank.features.device):
            self._fit(bank)
        self._sizes, self._like = (bank.features.shape[1], bank.logits.shape[1]), bank.features[:0]
        return self

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        """Score samples.

        Args:
            features: (M, D), of the same kind as those fitted on.
            logits: (M, K).

        Returns:
            (M,), higher is in-distribution, in the type and on the device of the training features (at least float32).

        Raises:
            ValueError: If the score was not fitted, shapes do not fit, there is no sample, or values are not finite.
        """
        if self._sizes is None:
            raise ValueError(f"{type(self).__name__} must be fitted before it scores: call fit(...) with training data")
        x, z = (part.to(self._like) for part in checked_queries(features, logits, *self._sizes))
        with measuring_precision(x.device):
            step = max(1, _ENTRIES // max(self._columns(), *self._sizes))
            parts = [self._score(*block) for block in zip(torch.split(x, step), torch.split(z, step), strict=True)]
            return torch.cat(parts)

    @abstractmethod
    def _fit(self, bank: Bank) -> None:
        """Keep what is needed of a checked training set."""

    @abstractmethod
    def _score(self, features: Tensor, logits: Tensor) -> Tensor:
        """Score a block of checked samples."""

    def _columns(self) -> int:
        """Return how many numbers a sample's largest intermediate holds."""
        return 1


def needs_weight(bank: Bank, name: str) -> Tensor:
    """Return the class vectors (K, D).

    Raises:
        UndefinedScoreError: If the head has none.
    """
    if bank.weight is None:
        raise UndefinedScoreError(
            f"{name} reads the class vectors of an affine head and got weight=None: give head.weight times its scale, "
            "or use a score of the features or logits alone"
        )
    return bank.weight


def length(rows: Tensor, floor: float) -> Tensor:
    """Return the norms of rows (N, D) as (N,), not below ``floor``: what is divided by them stays finite."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.clamp(min=floor)
