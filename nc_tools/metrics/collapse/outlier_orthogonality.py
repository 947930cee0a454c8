"""Whether the mean of outliers is orthogonal to the class means (NC5)."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.bad_rows import count_bad_rows
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.metrics.collapse.mean_geometry import finite_values, present_means


def outlier_orthogonality(means: Tensor, outliers: Tensor, counts: Tensor | None = None) -> dict[str, float]:
    """Measure how far the mean of outliers is from being orthogonal to the class means (NC5).

    If it is orthogonal, the part of a feature along the class means separates in-distribution samples from outliers;
    NECO and ViM score that part. With mu_k the class means (not centered: the origin matters) and mu_ood that of
    outliers,

        nc5   mean_k |cos(mu_k, mu_ood)|

    Source: Ammar et al. (2024), NC5. Only the mean of the outliers enters, so outliers on all sides of the origin look
    orthogonal, whatever each of them is. Use it to understand a score, and AUROC to judge one.

    Args:
        means: (K, D).
        outliers: Features of outliers (M, D).
        counts: Samples of each class (K,); classes without samples are left out. None if every class has some.

    Returns:
        The quantity by name; no key if a mean is zero.

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
            f"outliers must have the shape (M, {means.shape[1]}) with M >= 1, got {tuple(outliers.shape)}: pass "
            "features of the layer whose class means you pass"
        )
    with measuring_precision(means.device):
        mean_outlier = at_least_float32(outliers.detach()).to(means.device).mean(dim=0, dtype=torch.float64)
        if not bool(mean_outlier.isfinite().all()):
            bad = count_bad_rows(outliers)
            raise ValueError(
                f"outliers must be finite, but {bad} of {len(outliers)} samples hold NaN or inf: remove these samples, "
                "or check the model that produced them"
            )
        own = means.detach().double()[index]
        norms = torch.linalg.vector_norm(own, dim=1) * torch.linalg.vector_norm(mean_outlier)
        return finite_values({"nc5": ((own @ mean_outlier) / norms).abs().mean()})
