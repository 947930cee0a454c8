"""Directions and inverse deviations of a covariance, cut where rounding begins."""

from __future__ import annotations

import torch
from torch import Tensor


def whitening(covariance: Tensor, dtype: torch.dtype) -> Tensor:
    """Return A (D, r) with A A^T the pseudo-inverse of a covariance, so that ||A^T x||^2 = x^T cov^+ x.

    Eigenvalues below D eps of the largest are left out, eps the rounding of the features' type: what lies there is
    noise of the products, and its inverse would decide every score. Toolkits that invert in float32 cut at the same
    place.

    Args:
        covariance: (D, D), float64.
        dtype: Of the features that it was made from.

    Returns:
        (D, r), float64; r = 0 for a covariance of zeros.

    Example:
        >>> whitening(torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)), torch.float32).abs().tolist()
        [[0.5], [0.0]]
    """
    values, vectors = principal(covariance)
    kept = values > len(values) * torch.finfo(dtype).eps * values[0].clamp(min=torch.finfo(torch.float64).tiny)
    return vectors[:, kept] * values[kept].rsqrt()


def principal(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (D,), the largest first and none negative, and their eigenvectors as columns (D, D)."""
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0).clamp(min=0), vectors.flip(1)
