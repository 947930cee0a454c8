"""The variability collapse index (VCI): within-class spread that does not change under linear maps of the features."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.checks import checked_features
from nc_tools.metrics.collapse.mean_geometry import finite_values, present_means

# Rows of residuals at a time.
_ROWS = 4096


def variability_collapse_index(features: Tensor, labels: Tensor, num_classes: int | None = None) -> dict[str, float]:
    """Measure the share of the variance along the class differences that lies within classes: 0 means collapsed.

    Unlike NC1 it lies in [0, 1] (1: the classes do not differ) and does not change under invertible linear maps of the
    features, so it can be compared between layers and networks of different scale and width. With S_W and S_B
    class-averaged as in ``neural_collapse``, S_T = S_W + S_B,

        vci   1 - tr(S_T^+ S_B) / min(D, K - 1)

    Source: Xu and Liu (2023), who divide by rank(S_B), the same unless class means are linearly dependent. S_T must be
    of the weighting of S_B, else the value can leave [0, 1]. Costs O(N D^2). With fewer samples than dimensions
    almost any classes can be separated, which makes the index small by itself: use N well above D.

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
        if len(x) <= len(index):
            return {}
        weights = 1 / (counts.clamp(min=1) * len(index)).to(x.dtype)
        within = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        for rows, own in zip(torch.split(x, _ROWS), torch.split(y, _ROWS), strict=True):
            residual = rows - means.to(x.dtype)[own]
            within += (residual * weights[own, None]).T @ residual
        return finite_values({"vci": variability_index(within, centered)})


def variability_index(within: Tensor, centered: Tensor) -> Tensor:
    """Return the variability collapse index from the within-class covariance and the centered class means, or NaN."""
    num_classes, width = centered.shape
    total = (within + within.T) / 2 + centered.T @ centered / num_classes
    values, vectors = torch.linalg.eigh(total)
    # Directions below the rounding of float32 features are rounding errors.
    keep = values > values[-1] * width * torch.finfo(torch.float32).eps
    inside = (centered @ vectors).square().sum(dim=0) / num_classes
    between_share = torch.where(keep, inside / values, 0.0).sum()
    return torch.where(centered.square().sum() > 0, 1 - between_share / min(width, num_classes - 1), torch.nan)
