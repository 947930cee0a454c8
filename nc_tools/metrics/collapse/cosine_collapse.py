"""Collapse measured by angles alone: mean cosines between samples of one class and of different classes."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.checks import checked_features
from nc_tools.metrics.collapse.mean_geometry import finite_values, present_means

# Rows of unit vectors that are computed at a time.
_ROWS = 8192


def cosine_collapse(features: Tensor, labels: Tensor, num_classes: int | None = None) -> dict[str, float]:
    """Measure the mean cosine between samples of the same class and between samples of different classes.

    These two numbers describe NC1 and NC2 together and ignore feature norms, which suits heads that normalize. With u_i
    the features minus the unweighted mean of the class means, at unit length,

        cosine_within    mean_k of mean_{i != j in k} u_i . u_j            1 when collapsed
        cosine_between   mean_{k != l} of mean_{i in k, j in l} u_i . u_j   -1/(K - 1) when collapsed

    Pairs are not computed one by one: with m_k the mean of the u_i of class k and n_k their number, the first is the
    mean of (n_k ||m_k||^2 - 1)/(n_k - 1) and the second that of m_k . m_l, in O(N D).

    Source: Pan and Cao (2023), who also pair each sample with itself, which adds (1 - within)/n_k.

    Args:
        features: (N, D).
        labels: (N,).
        num_classes: K; by default the largest label plus one.

    Returns:
        The quantities by name; no ``cosine_within`` if no class has two samples, and nothing if a feature equals the
        mean of the class means.

    Raises:
        TypeError: If the labels are not integers or the features not floating-point.
        ValueError: If shapes do not fit, a label is out of range, a feature is not finite, or fewer than two
            classes have samples.

    Example:
        >>> x = torch.eye(3).repeat(2, 1)
        >>> {key: round(value, 3) for key, value in cosine_collapse(x, torch.arange(3).repeat(2)).items()}
        {'cosine_within': 1.0, 'cosine_between': -0.5}
    """
    x, y, num_classes = checked_features(features, labels, num_classes)
    with measuring_precision(x.device):
        counts, sums = class_sums(x, y, num_classes)
        means = sums / counts.clamp(min=1)[:, None]
        index, centered = present_means(means, counts)
        center = (means[index] - centered).mean(dim=0)
        return finite_values(cosines_from_sums(counts, direction_sums(x, y, center, num_classes)))


def direction_sums(features: Tensor, labels: Tensor, center: Tensor, num_classes: int) -> Tensor:
    """Return the sum of the unit vectors from a center to the features of each class: (K, D), float64."""
    origin = center.to(features.device).double()
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    for rows, own in zip(torch.split(features, _ROWS), torch.split(labels, _ROWS), strict=True):
        shifted = rows - origin
        shifted /= torch.linalg.vector_norm(shifted, dim=1, keepdim=True)
        sums += class_sums(shifted, own, num_classes)[1]
    return sums


def cosines_from_sums(counts: Tensor, sums: Tensor) -> dict[str, Tensor]:
    """Return the mean cosines within and between classes, from the count and sum of each class's unit vectors."""
    present = counts > 0
    sizes, mean = counts[present].double(), sums[present] / counts[present, None]
    squares = mean.square().sum(dim=1)
    several = sizes > 1
    within = (sizes * squares - 1)[several] / (sizes - 1)[several]
    pairs = len(mean) * (len(mean) - 1)
    return {
        "cosine_within": within.mean(),
        "cosine_between": (mean.sum(dim=0).square().sum() - squares.sum()) / pairs,
    }
