"""The training set that scores are fitted on, checked once, and its moments, computed once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32
from nc_tools.class_moments import ClassMoments

_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Bank:
    """A checked training set. Made by :meth:`checked`; what is derived from it is computed when first asked for.

    Attributes:
        features: (N, D), float32 or float64.
        logits: (N, K), of the same type.
        labels: (N,), int64.
        weight: (K, D) or None.
        bias: (K,) or None.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def checked(
        cls, features: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Bank:
        """Check a training set and bring it to one device and type.

        Raises:
            TypeError: If features or logits are not floating-point, or labels not integers.
            ValueError: If shapes do not fit, there is no sample, or values are not finite.
        """
        check_features_and_labels(features, labels)
        x, z = _same_type(features, logits)
        if len(x) == 0:
            raise ValueError("a score is fitted on training samples, and there is none: give at least one")
        width, number = x.shape[1], z.shape[1]
        y = labels.to(x.device).long()
        if outside := int(((y < 0) | (y >= number)).sum()):
            raise ValueError(f"labels must lie in [0, {number}), but {outside} of {len(y)} do not")
        _check_finite(x, z, "training ")
        if weight is None and bias is not None:
            raise ValueError("a bias belongs to class vectors, and weight is None: give both, or neither")
        if weight is not None and weight.shape != (number, width):
            raise ValueError(
                f"weight must be (K, D) = ({number}, {width}) to fit logits and features, got {tuple(weight.shape)}: "
                "give the features that enter the head's product (its embedded ones)"
            )
        if bias is not None and bias.shape != (number,):
            raise ValueError(f"bias must be (K,) = ({number},), got {tuple(bias.shape)}")
        w, b = (None if part is None else part.detach().to(x) for part in (weight, bias))
        return cls(x, z, y, w, b)

    @cached_property
    def _moments(self) -> ClassMoments:
        moments = ClassMoments(self.logits.shape[1], self.features.shape[1], self.features.device)
        for x, y in zip(torch.split(self.features, _ROWS), torch.split(self.labels, _ROWS), strict=True):
            moments.update(x, y)
        return moments

    @cached_property
    def present(self) -> Tensor:
        """Classes that have samples (K',), in order."""
        return (self._moments.counts > 0).nonzero().flatten()

    @cached_property
    def means(self) -> Tensor:
        """Their means (K', D), float64."""
        return self._moments.means[self.present]

    @cached_property
    def shares(self) -> Tensor:
        """Their shares of the samples (K',), float64."""
        counts = self._moments.counts[self.present].double()
        return counts / counts.sum()

    @cached_property
    def mean(self) -> Tensor:
        """Mean of all samples (D,), float64."""
        return self.shares @ self.means

    @cached_property
    def within(self) -> Tensor:
        """Covariance about the class means, every sample alike (D, D), float64."""
        return self._moments.within_pooled()

    @cached_property
    def total(self) -> Tensor:
        """Covariance about the mean of all samples (D, D), float64."""
        return self.within + between(self.means, self.mean, self.shares)

    @cached_property
    def reach(self) -> float:
        """Root mean square distance of the samples to their mean."""
        return math.sqrt(max(0.0, float(self.total.diagonal().sum())))


def between(means: Tensor, center: Tensor, shares: Tensor) -> Tensor:
    """Return sum_k share_k (mu_k - c)(mu_k - c)^T (D, D) of means (K, D)."""
    shifted = means - center
    return (shifted * shares[:, None]).T @ shifted


def checked_queries(features: Tensor, logits: Tensor, width: int, number: int) -> tuple[Tensor, Tensor]:
    """Check samples to be scored against D and K, and bring them to one type.

    Raises:
        TypeError: If they are not floating-point.
        ValueError: If shapes do not fit, there is no sample, or values are not finite.
    """
    x, z = _same_type(features, logits)
    if x.shape[1] != width or z.shape[1] != number:
        raise ValueError(
            f"the score was fitted on {width} features and {number} classes, got features {tuple(x.shape)} and logits "
            f"{tuple(z.shape)}: take both from the same model"
        )
    if len(x) == 0:
        raise ValueError("a set to score needs at least one sample, got none")
    _check_finite(x, z, "")
    return x, z


def _same_type(features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    if features.ndim != 2 or logits.ndim != 2 or len(features) != len(logits):
        raise ValueError(
            f"features must be (N, D) and logits (N, K) of the same samples, got {tuple(features.shape)} and "
            f"{tuple(logits.shape)}"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating-point scores before the softmax, got {logits.dtype}")
    x = at_least_float32(features.detach())
    return x, logits.detach().to(x)


def _check_finite(features: Tensor, logits: Tensor, kind: str) -> None:
    parts = {"features": features, "logits": logits}
    bad = torch.stack([(~part.isfinite().all(dim=1)).sum() for part in parts.values()]).tolist()
    for name, number in zip(parts, bad, strict=True):
        if number:
            raise ValueError(
                f"{name} must be finite, but {number} of {len(features)} {kind}samples hold NaN or inf: a model that "
                "diverged cannot be scored"
            )
