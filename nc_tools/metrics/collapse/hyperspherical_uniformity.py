"""How evenly class means are spread over a sphere: NC2 for any number of classes K, also K > D + 1."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.collapse.mean_geometry import finite_values, gram_blocks, present_means


def hyperspherical_uniformity(means: Tensor, counts: Tensor | None = None) -> dict[str, float]:
    """Measure how equal the distances between the directions of class means are (GNC2), for any number of classes.

    For K > D + 1 no simplex frame exists and ``nc2_equiangular`` cannot reach 0, but classes can still spread evenly.
    With u_k the centered class means at unit length and e_ij = log(1 / ||u_i - u_j||),

        gnc2_energy   mean_{i < j} e_ij          lower is more spread; the simplex frame has log(sqrt((K - 1)/(2 K)))
        gnc2          std_{i < j} e_ij / |gnc2_energy|

    with the population's standard deviation. For K <= D + 1, gnc2 is zero for the simplex frame only; for larger K the
    smallest value depends on K and D, so compare models with each other, not with zero. Computed block by block: it
    needs the memory of K x D numbers and one block, also for K = 50,000.

    Source: Wu and Papyan (2024), GNC2, with the logarithmic kernel of Liu et al. (2023). They divide by the signed
    mean; the absolute value here makes gnc2 positive.

    Args:
        means: (K, D).
        counts: Samples of each class (K,); classes without samples are left out. None if every class has some.

    Returns:
        The quantities by name; none if two class directions are equal.

    Raises:
        TypeError: If the means are not floating-point.
        ValueError: If shapes do not fit, a mean is not finite, or fewer than two classes have samples.

    Example:
        >>> hyperspherical_uniformity(torch.eye(5))["gnc2"] < 1e-6
        True
    """
    with measuring_precision(means.device):
        _, centered = present_means(means, counts)
        units = centered / torch.linalg.vector_norm(centered, dim=1, keepdim=True)
        pairs = len(units) * (len(units) - 1)
        mean = _sum_over_pairs(units, torch.zeros((), dtype=units.dtype, device=units.device), 1) / pairs
        variance = _sum_over_pairs(units, mean, 2) / pairs
        return finite_values({"gnc2": variance.sqrt() / mean.abs(), "gnc2_energy": mean})


def _sum_over_pairs(units: Tensor, center: Tensor, power: int) -> Tensor:
    total = torch.zeros((), dtype=units.dtype, device=units.device)
    for start, gram in gram_blocks(units):
        rows = torch.arange(start, start + len(gram), device=units.device)
        energy = (2 - 2 * gram).clamp_(min=0).log_().mul_(-0.5)
        energy -= center
        energy[rows - start, rows] = 0
        total = total + energy.pow_(power).sum()
    return total
