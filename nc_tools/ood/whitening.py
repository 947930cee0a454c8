"""The principal directions of a covariance, and a whitening matrix that leaves out directions of rounding error."""

from __future__ import annotations

import torch
from torch import Tensor


def whitening(covariance: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a whitening matrix A (D, r) of a covariance: A A^T is the pseudo-inverse of the covariance.

    So ||A^T x||^2 = x^T cov^+ x.

    Eigenvalues below D eps times the largest are left out, with eps the rounding of the features' type: they are
    rounding errors of the products, and their inverse would decide every score. Toolkits that invert in float32 cut at
    the same place.

    Args:
        covariance: (D, D), float64.
        dtype: Type of the features that it was computed from.

    Returns:
        (D, r), float64; r = 0 for a covariance of zeros.

    Example:
        >>> whitening(torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)), torch.float32).abs().tolist()
        [[0.5], [0.0]]
    """
    values, vectors = principal_directions(covariance)
    kept = values > len(values) * torch.finfo(dtype).eps * values[0].clamp(min=torch.finfo(torch.float64).tiny)
    return vectors[:, kept] * values[kept].rsqrt()


def principal_directions(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of a covariance, the largest first and none negative, and its eigenvectors (D, D).

    Eigenvectors are columns.
    """
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0).clamp(min=0), vectors.flip(1)
