"""Collapse told by angles between samples alone: cosines within and between classes."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.metrics.checks import checked_features
from nc_tools.metrics.collapse.mean_geometry import defined, present_means


def cosine_collapse(features: Tensor, labels: Tensor, num_classes: int | None = None) -> dict[str, float]:
    """Measure how much alike samples of one class and of two classes point, seen from the mean of the classes.

    One pair of numbers for NC1 and NC2 together, blind to feature norms: fit for heads that normalize. With u_i the
    features less the unweighted mean of the class means, at unit length,

        cosine_within    mean_k of mean_{i != j in k} u_i . u_j            1 when collapsed
        cosine_between   mean_{k != l} of mean_{i in k, j in l} u_i . u_j   -1/(K - 1) when collapsed

    Pairs are never formed: with m_k the mean of the u_i of class k and n_k their number, the first is the mean of
    (n_k ||m_k||^2 - 1)/(n_k - 1) and the second that of m_k . m_l, O(N D).

    Source: Pan and Cao (2023), who let a sample pair with itself, which adds (1 - within)/n_k.

    Args:
        features: (N, D).
        labels: (N,).
        num_classes: K; by default the largest label plus one.

    Returns:
        The quantities by name; no ``cosine_within`` if no class has two samples, none if a feature lies on the center.

    Raises:
        TypeError: If the labels are not integers or the features not floating-point.
        ValueError: If shapes do not fit, a label is out of range, a feature is not finite, or fewer than two
            classes have samples.

    Example:
        >>> x = torch.eye(3).repeat(2, 1)
        >>> {key: round(value, 3) for key, value in cosine_collapse(x, torch.arange(3).repeat(2)).items()}
        {'cosine_within': 1.0, 'cosine_between': -0.5}
    """
    x, y, number = checked_features(features, labels, num_classes)
    with measuring_precision(x.device):
        counts, sums = class_sums(x, y, number)
        means = sums / counts.clamp(min=1)[:, None]
        index, centered = present_means(means, counts)
        center = (means[index] - centered).mean(dim=0)
        return defined(cosines_from_sums(counts, unit_sums(x, y, center, number)))


def unit_sums(features: Tensor, labels: Tensor, center: Tensor, num_classes: int) -> Tensor:
    """Add up, class by class (K, D) in float64, the directions in which features (N, D) are seen from a center (D,)."""
    moved = at_least_float32(features) - center.to(features.device, at_least_float32(features).dtype)
    units = moved / torch.linalg.vector_norm(moved, dim=1, keepdim=True)
    return class_sums(units, labels, num_classes)[1]


def cosines_from_sums(counts: Tensor, sums: Tensor) -> dict[str, Tensor]:
    """Return the two means of cosines from the number of directions of each class (K,) and their sums (K, D)."""
    some = counts > 0
    number, mean = counts[some].double(), sums[some] / counts[some, None]
    squares = mean.square().sum(dim=1)
    several = number > 1
    within = (number * squares - 1)[several] / (number - 1)[several]
    pairs = len(mean) * (len(mean) - 1)
    return {
        "cosine_within": within.mean(),
        "cosine_between": (mean.sum(dim=0).square().sum() - squares.sum()) / pairs,
    }
