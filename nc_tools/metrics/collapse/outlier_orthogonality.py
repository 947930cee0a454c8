"""Whether outliers lie across the class means (NC5)."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.metrics.collapse.mean_geometry import defined, present_means


def outlier_orthogonality(means: Tensor, outliers: Tensor, counts: Tensor | None = None) -> dict[str, float]:
    """Measure how far the mean outlier is from being orthogonal to the class means.

    Where it is orthogonal, the part of a feature along the class means tells in-distribution from outlier, which is
    what NECO and ViM score. With mu_k the class means (not centered: the origin matters) and mu_ood that of outliers,

        nc5   mean_k |cos(mu_k, mu_ood)|

    Source: Ammar et al. (2024), NC5. The mean of outliers decides, so that outliers on all sides of the origin look
    orthogonal whatever each of them is; use it to understand a score, and AUROC to judge one.

    Args:
        means: (K, D).
        outliers: Features of outliers (M, D).
        counts: Samples of each class (K,), where some may have none: those are left out.

    Returns:
        The quantity by name; no key where a mean is zero.

    Raises:
        TypeError: If means or outliers are not floating-point.
        ValueError: If shapes do not fit, there is no outlier, or a value is not finite.

    Example:
        >>> outlier_orthogonality(torch.eye(3)[:2], torch.eye(3)[2:])
        {'nc5': 0.0}
    """
    index, _ = present_means(means, counts)
    if outliers.ndim != 2 or outliers.shape[1] != means.shape[1] or len(outliers) == 0:
        raise ValueError(
            f"outliers must have the shape (M, {means.shape[1]}) with M >= 1, got {tuple(outliers.shape)}: pass their "
            "features from the same layer"
        )
    with measuring_precision(means.device):
        other = at_least_float32(outliers.detach()).to(means.device).mean(dim=0, dtype=torch.float64)
        if not bool(other.isfinite().all()):
            bad = int((~outliers.isfinite().all(dim=1)).sum())
            raise ValueError(f"outliers must be finite, but {bad} of {len(outliers)} hold NaN or inf: repair them")
        own = means.detach().double()[index]
        norms = torch.linalg.vector_norm(own, dim=1) * torch.linalg.vector_norm(other)
        return defined({"nc5": ((own @ other) / norms).abs().mean()})
