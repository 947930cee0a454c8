"""The base class of all out-of-distribution scores."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.ood.training_set import TrainingSet, checked_samples

# Entries of the largest intermediate result of one block of samples: 128 MB in float64.
_ENTRIES = 1 << 24


class UndefinedScoreError(ValueError):
    """Raised if a score is not defined for the training set or the head; reports leave such a score out."""


class OODScore(ABC):
    """A score of how much a sample looks like the training set; **higher means in-distribution**, for every score.

    Build a score with its settings, fit it on the training set once, then score any number of sets.
    :attr:`fits_on` lists what fitting reads; where it is empty, fitting only stores the sizes. Features are those that
    the head multiplies by its weight (``embedded`` for a head that projects or normalizes), taken in eval mode without
    augmentation. Heads without a bias work (``bias=None``), and so do class vectors that are frozen or a buffer.
    All arithmetic is float64, so float32 and float64 features of the same values have the same scores.

    To add a score, write a subclass with a ``name`` and the methods :meth:`_fit` and :meth:`_score_samples`. In this
    package, a new file and its import in ``nc_tools/ood/__init__.py`` are enough: reports then include the score.

    Attributes:
        name: Name of the score in the keys of reports.
        fits_on: Arguments of :meth:`fit` that fitting reads.
        reads_features_alone: Whether neither fitting nor scoring reads logits or class vectors. Heads on the same
            features then share the score.

    Example:
        >>> from nc_tools.ood import Energy
        >>> train = torch.eye(2), torch.eye(2), torch.tensor([0, 1])
        >>> Energy().fit(*train).score_samples(torch.eye(2), torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
        tensor([0.6931, 9.0001], dtype=torch.float64)
    """

    name: ClassVar[str]
    fits_on: ClassVar[tuple[str, ...]] = ()
    reads_features_alone: ClassVar[bool] = False

    _sizes: tuple[int, int] | None = None
    _device: torch.device

    def fit(
        self,
        features: Tensor,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Self:
        """Fit the score on the features, logits and labels of a training set.

        Args:
            features: (N, D), as the head multiplies them by its weight.
            logits: (N, K).
            labels: (N,), integers in [0, K).
            weight: (K, D), such that logits = features @ weight.T + bias, with the head's scale in it; None if the head
                does not have that form.
            bias: (K,) or None.

        Returns:
            The fitted score itself.

        Raises:
            TypeError: If features or logits are not floating-point, or labels not integers.
            ValueError: If shapes do not fit, there is no sample, or values are not finite.
            UndefinedScoreError: If these data or this head do not define the score.
        """
        return self.fit_training_set(TrainingSet.checked(features, logits, labels, weight, bias))

    def fit_training_set(self, train: TrainingSet) -> Self:
        """Fit the score on a training set that several scores share, so that its moments are computed only once.

        Raises:
            UndefinedScoreError: If the score is not defined for the training set or its head.
        """
        with measuring_precision(train.features.device):
            self._fit(train)
        self._sizes, self._device = (train.features.shape[1], train.logits.shape[1]), train.features.device
        return self

    def score_samples(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each sample.

        Args:
            features: (M, D), of the same kind as the features in :meth:`fit`.
            logits: (M, K).

        Returns:
            (M,), higher means in-distribution, float64, on the device of the training features.

        Raises:
            TypeError: If features or logits are not floating-point.
            ValueError: If the score was not fitted, shapes do not fit, there is no sample, or values are not finite.
        """
        if self._sizes is None:
            raise ValueError(f"{type(self).__name__} must be fitted before it scores samples: call fit(...) first")
        x, z = (part.to(self._device) for part in checked_samples(features, logits, *self._sizes))
        with measuring_precision(x.device):
            rows = max(1, _ENTRIES // max(self._values_per_sample(), *self._sizes))
            blocks = zip(torch.split(x, rows), torch.split(z, rows), strict=True)
            return torch.cat([self._score_samples(block.double(), scores.double()) for block, scores in blocks])

    @abstractmethod
    def _fit(self, train: TrainingSet) -> None:
        """Compute and store what the score needs of a checked training set."""

    @abstractmethod
    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the scores (B,) of one block of checked samples; all tensors are float64."""

    def _values_per_sample(self) -> int:
        """Return the number of values per sample in the largest intermediate result."""
        return 1


def package_scores() -> tuple[type[OODScore], ...]:
    """Return the score classes of ``nc_tools.ood``, in the order of its imports, in which reports list them.

    Subclasses of your own are not among them: give them to :func:`ood_report` as ``scores=``.
    """
    package = __name__.rpartition(".")[0]
    return tuple(cls for cls in _concrete_subclasses(OODScore) if cls.__module__.startswith(f"{package}."))


def _concrete_subclasses(parent: type[Any]) -> Iterator[type[OODScore]]:
    for cls in parent.__subclasses__():
        if not inspect.isabstract(cls):
            yield cls
        yield from _concrete_subclasses(cls)


def require_weight(train: TrainingSet, name: str) -> Tensor:
    """Return the class vectors (K, D) of a training set's head.

    Args:
        train: The training set.
        name: Name of the score, for the error message.

    Raises:
        UndefinedScoreError: If the training set has no class vectors.
    """
    if train.weight is None:
        raise UndefinedScoreError(
            f"{name} needs class vectors, got weight=None: pass weight=head.scale * head.weight, if its logits are "
            "weight @ features + bias, or use a score that reads features or logits alone"
        )
    return train.weight


def norms_at_least(rows: Tensor, floor: float) -> Tensor:
    """Return the norms (N,) of rows (N, D), raised to ``floor`` where smaller, so that one can divide by them."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.clamp(min=floor)
