"""The training set that out-of-distribution scores are fitted on, checked once, and its moments, computed once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nc_tools._support.bad_rows import count_bad_rows
from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32
from nc_tools.class_moments import ClassMoments

_ROWS = 8192


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A checked training set, built with :meth:`checked`; its moments are computed when they are first read.

    Attributes:
        features: (N, D), float32 or float64.
        logits: (N, K), float32 or float64.
        labels: (N,), int64.
        weight: (K, D), float64, or None.
        bias: (K,), float64, or None.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def checked(
        cls, features: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> TrainingSet:
        """Check features, logits and labels of a training set, and bring them to one device.

        Raises:
            TypeError: If features or logits are not floating-point, or labels not integers.
            ValueError: If shapes do not fit, there is no sample, or values are not finite.
        """
        check_features_and_labels(features, labels)
        x, z = _same_device(features, logits)
        if len(x) == 0:
            raise ValueError("cannot fit a score on a training set without samples: give at least one")
        width, num_classes = x.shape[1], z.shape[1]
        y = labels.to(x.device).long()
        if outside := int(((y < 0) | (y >= num_classes)).sum()):
            raise ValueError(f"labels must lie in [0, {num_classes}), but {outside} of {len(y)} do not")
        _check_finite(x, z, "training ")
        if weight is None and bias is not None:
            raise ValueError("bias needs a weight, but weight is None: pass both weight and bias, or neither")
        if weight is not None and weight.shape != (num_classes, width):
            raise ValueError(
                f"weight must have the shape (K, D) = ({num_classes}, {width}) to fit logits (N, K) and features "
                f"(N, D), got {tuple(weight.shape)}: pass the features after the head's projection, which its weight "
                "multiplies"
            )
        if bias is not None and bias.shape != (num_classes,):
            raise ValueError(f"bias must have the shape (K,) = ({num_classes},), got {tuple(bias.shape)}")
        w, b = (None if part is None else part.detach().to(x.device).double() for part in (weight, bias))
        return cls(x, z, y, w, b)

    @cached_property
    def _moments(self) -> ClassMoments:
        moments = ClassMoments(self.logits.shape[1], self.features.shape[1], self.features.device)
        for x, y in zip(torch.split(self.features, _ROWS), torch.split(self.labels, _ROWS), strict=True):
            moments.update(x, y)
        return moments

    @cached_property
    def present(self) -> Tensor:
        """Indices (K',) of the classes that have samples, in ascending order."""
        return (self._moments.counts > 0).nonzero().flatten()

    @cached_property
    def means(self) -> Tensor:
        """Means of the classes that have samples (K', D), float64."""
        return self._moments.means[self.present]

    @cached_property
    def shares(self) -> Tensor:
        """Share of all samples in each class that has samples (K',), float64."""
        counts = self._moments.counts[self.present].double()
        return counts / counts.sum()

    @cached_property
    def mean(self) -> Tensor:
        """Mean of all samples (D,), float64."""
        return self.shares @ self.means

    @cached_property
    def within(self) -> Tensor:
        """Covariance about the class means, with equal weight for every sample (D, D), float64."""
        return self._moments.within_pooled()

    @cached_property
    def total(self) -> Tensor:
        """Covariance about the mean of all samples (D, D), float64."""
        return self.within + between(self.means, self.mean, self.shares)

    def blocks(self) -> Iterator[Tensor]:
        """Yield the features in float64, some rows at a time."""
        for x in torch.split(self.features, _ROWS):
            yield x.double()

    @cached_property
    def spread(self) -> float:
        """Root mean square distance of the samples to their mean."""
        return math.sqrt(max(0.0, float(self.total.diagonal().sum())))


def between(means: Tensor, center: Tensor, shares: Tensor) -> Tensor:
    """Return the covariance (D, D) of class means about a center c: sum_k share_k * (mu_k - c)(mu_k - c)^T."""
    shifted = means - center
    return (shifted * shares[:, None]).T @ shifted


def checked_samples(features: Tensor, logits: Tensor, width: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Check that samples to score have the sizes of the training set, and bring them to one device.

    Raises:
        TypeError: If they are not floating-point.
        ValueError: If shapes do not fit, there is no sample, or values are not finite.
    """
    x, z = _same_device(features, logits)
    if x.shape[1] != width or z.shape[1] != num_classes:
        raise ValueError(
            f"the score was fitted on {width} features and {num_classes} classes, got features {tuple(x.shape)} and "
            f"logits {tuple(z.shape)}: compute them with the model that the score was fitted on"
        )
    if len(x) == 0:
        raise ValueError("a score needs at least one sample, got none: pass the features and logits of some images")
    _check_finite(x, z, "")
    return x, z


def _same_device(features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    if features.ndim != 2 or logits.ndim != 2 or len(features) != len(logits):
        raise ValueError(
            f"features must be (N, D) and logits (N, K) of the same samples, got {tuple(features.shape)} and "
            f"{tuple(logits.shape)}"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating-point scores before the softmax, got {logits.dtype}")
    x = at_least_float32(features.detach())
    return x, at_least_float32(logits.detach(), "logits").to(x.device)


def _check_finite(features: Tensor, logits: Tensor, kind: str) -> None:
    parts = {"features": features, "logits": logits}
    for name, part in parts.items():
        if count := count_bad_rows(part):
            raise ValueError(
                f"{name} must be finite, but {count} of {len(features)} {kind}samples hold NaN or inf: remove these "
                "samples, or check the model that produced them"
            )
