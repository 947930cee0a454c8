"""Uniform duality: whether all classes are equally far from self-duality (NC3)."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.collapse.mean_geometry import finite_values, present_means, present_rows


def uniform_duality(means: Tensor, weight: Tensor, counts: Tensor | None = None) -> dict[str, float]:
    """Measure how equal the alignment of head rows and class means is over the classes (uniform NC3).

    A head with many classes seldom reaches self-duality. Uniform duality is the weaker property that all classes are
    equally well aligned. With c_k the centered class means and s_k = cos(w_k, c_k),

        nc3_uniform   std_k s_k / |mean_k s_k|      (the population's standard deviation)

    It is also zero if every class is misaligned by the same angle, so look at ``nc3_cosine`` = 1 - mean_k s_k as well.
    Source: Wu and Papyan (2024), uniform duality, with the cosine of each class to its own row.

    Args:
        means: (K, D), of the features that the head multiplies by ``weight``.
        weight: (K, D).
        counts: Samples of each class (K,); classes without samples are left out. None if every class has some.

    Returns:
        The quantity by name; no key if a class mean equals the mean of all, a row is zero, or the mean cosine is zero.

    Raises:
        TypeError: If the means are not floating-point.
        ValueError: If shapes do not fit, a mean is not finite, or fewer than two classes have samples.

    Example:
        >>> uniform_duality(torch.eye(3), torch.eye(3))["nc3_uniform"] < 1e-6
        True
    """
    with measuring_precision(means.device):
        index, centered = present_means(means, counts)
        rows = present_rows(weight, means, index)
        norms = torch.linalg.vector_norm(rows, dim=1) * torch.linalg.vector_norm(centered, dim=1)
        cosines = (rows * centered).sum(dim=1) / norms
        return finite_values({"nc3_uniform": cosines.std(correction=0) / cosines.mean().abs()})
