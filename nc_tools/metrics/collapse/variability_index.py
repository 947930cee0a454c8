"""The variability collapse index (VCI): within-class spread that does not change under linear maps of the features."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.precision import measuring_precision
from nc_tools._support.whitening import whitening
from nc_tools.metrics.checks import checked_features
from nc_tools.metrics.collapse.mean_geometry import finite_values, present_means

# Rows of residuals that are computed at a time.
_ROWS = 1024


def variability_collapse_index(features: Tensor, labels: Tensor, num_classes: int | None = None) -> dict[str, float]:
    """Measure the share of the variance along the class differences that lies within classes: 0 means collapsed.

    Unlike NC1 it lies in [0, 1] (1: the classes do not differ) and does not change under invertible linear maps of the
    features, so it can be compared between layers and networks of different scale and width. With S_W and S_B
    class-averaged as in ``neural_collapse``, S_T = S_W + S_B,

        vci   1 - tr(S_T^+ S_B) / min(D, K - 1)

    Source: Xu and Liu (2023), who divide by rank(S_B), which is the same unless class means are linearly dependent. S_T
    must weight the classes as S_B does, otherwise the value can leave [0, 1]. Computed in float64, at a cost of
    O(N D^2). With fewer samples than dimensions almost any classes can be separated, and the index is small for any
    features: use N well above D.

    Args:
        features: (N, D).
        labels: (N,).
        num_classes: K; by default the largest label plus one.

    Returns:
        The quantity by name; no key if every class has one sample, or all class means are equal.

    Raises:
        TypeError: If the labels are not integers or the features not floating-point.
        ValueError: If shapes do not fit, a label is out of range, a feature is not finite, or fewer than two
            classes have samples.

    Example:
        >>> x = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
        >>> round(variability_collapse_index(x, torch.tensor([0, 0, 1, 1]))["vci"], 6)
        0.2
    """
    x, y, num_classes = checked_features(features, labels, num_classes)
    with measuring_precision(x.device):
        counts, sums = class_sums(x, y, num_classes)
        means = sums / counts.clamp(min=1)[:, None]
        index, centered = present_means(means, counts)
        if len(x) <= len(index) or not bool(centered.any()):
            return {}
        within = within_scatter(x, y, means, 1 / (counts.clamp(min=1) * len(index)))
        return finite_values({"vci": variability_index(within, means[index])})


def within_scatter(features: Tensor, place: Tensor, means: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i a_y (h_i - m_y)(h_i - m_y)^T with y the class of sample i: (D, D), float64.

    With the weights a_k = 1/(K n_k) it is the class-averaged covariance.

    Args:
        features: h (N, D), float32 or float64.
        place: The row of ``means`` and ``weights`` that is the sample's class (N,).
        means: m (K, D), float64.
        weights: a (K,), the weight of one sample of each class.
    """
    scatter = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=features.device)
    roots = weights.double().sqrt()
    for rows, own in zip(torch.split(features, _ROWS), torch.split(place, _ROWS), strict=True):
        residual = torch.sub(rows, means[own]).mul_(roots[own, None])
        scatter.addmm_(residual.T, residual)
    return scatter


def variability_index(within: Tensor, means: Tensor) -> Tensor:
    """Return the variability collapse index, or NaN if all class means are equal.

    Args:
        within: Class-averaged within-class covariance (D, D), float64.
        means: Means of the K classes that have samples (K, D), float64.
    """
    num_classes, width = means.shape
    centered = means - means.mean(dim=0)
    total = within + centered.T @ centered / num_classes
    # tr(S_T^+ S_B) is the mean squared length of the class means in coordinates in which S_T is the identity.
    between_share = (centered @ whitening(total, means)).square().sum() / num_classes
    return torch.where(centered.square().sum() > 0, 1 - between_share / min(width, num_classes - 1), torch.nan)
