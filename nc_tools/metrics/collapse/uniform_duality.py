"""Whether all classes are equally far from self-duality."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.collapse.mean_geometry import defined, present_means, rows_of


def uniform_duality(means: Tensor, weight: Tensor, counts: Tensor | None = None) -> dict[str, float]:
    """Measure how equally well the rows of a head are aligned with their class means (uniform NC3).

    A head with many classes seldom reaches self-duality; that no class is treated worse than another is the weaker
    property that remains. With c_k the centered class means and s_k = cos(w_k, c_k),

        nc3_uniform   std_k s_k / |mean_k s_k|      (the population's deviation)

    Zero also where every class is misaligned alike: read ``nc3_cosine`` = 1 - mean_k s_k beside it. Source: Wu and
    Papyan (2024), uniform duality, over each class's own cosine.

    Args:
        means: (K, D), in the space where ``weight`` acts.
        weight: (K, D).
        counts: Samples of each class (K,), where some may have none: those are left out.

    Returns:
        The quantity by name; no key where a class mean lies on the mean of all, a row is zero or the cosines cancel.

    Raises:
        TypeError: If the means are not floating-point.
        ValueError: If shapes do not fit, a mean is not finite, or fewer than two classes have samples.

    Example:
        >>> uniform_duality(torch.eye(3), torch.eye(3))["nc3_uniform"] < 1e-6
        True
    """
    with measuring_precision(means.device):
        index, centered = present_means(means, counts)
        rows = rows_of(weight, means, index)
        norms = torch.linalg.vector_norm(rows, dim=1) * torch.linalg.vector_norm(centered, dim=1)
        cosines = (rows * centered).sum(dim=1) / norms
        return defined({"nc3_uniform": cosines.std(correction=0) / cosines.mean().abs()})
