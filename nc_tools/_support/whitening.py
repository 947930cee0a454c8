"""The principal directions of a covariance, and a whitening matrix within the directions in which samples vary."""

from __future__ import annotations

import torch
from torch import Tensor

# With features scaled to unit variance, an eigenvalue of at most this share of the largest is a rounding error: of
# float32 features whose values are up to ten times their standard deviation, or of the covariance in float64.
_ROUNDING = 1e-12
# Relative to the size of its values, a float32 feature that is not constant has a standard deviation of at least
# 6e-8 / sqrt(N), and the rounding error of a constant feature's mean in float64 is below 1e-12.
_CONSTANT = 4096 * torch.finfo(torch.float64).eps


def constant_deviation(means: Tensor) -> Tensor:
    """Return the largest standard deviation (D,) at which each feature counts as constant, from class means (K, D)."""
    return means.abs().amax(dim=0) * _CONSTANT


def whitening(covariance: Tensor, means: Tensor) -> Tensor:
    """Return a whitening matrix A (D, r) of a covariance of rank r: A A^T is its pseudo-inverse.

    So ||A^T x||^2 = x^T cov^+ x, the squared Mahalanobis length of x within the directions of the covariance.

    The rank is decided for features scaled to unit variance, so that it depends neither on the unit of a feature nor on
    the type in which the features are stored. An eigenvalue counts as zero if it is at most 1e-12 of the largest (or
    D 2.2e-16, if larger). In such a direction the standard deviation is at most a millionth of the largest, which in
    float32 features is rounding.

    The limit that is usual for a pseudo-inverse in float32, D 1.2e-7 of the largest *eigenvalue*, would leave out all
    directions with less than 1 % of the largest standard deviation. In trained networks these are most directions, and
    outliers differ from other samples in them.

    Args:
        covariance: (D, D), float64.
        means: The class means (K, D) that were subtracted. A feature whose standard deviation is below 1e-12 of them
            is constant, because sums are rounded that much.

    Returns:
        (D, r), float64; r = 0 for a covariance of zeros.

    Example:
        >>> a = whitening(torch.diag(torch.tensor([4.0, 0.0, 1e-8], dtype=torch.float64)), torch.zeros(1, 3))
        >>> (a @ a.T).diagonal().tolist()
        [0.25, 0.0, 100000000.0]
    """
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    varies = deviation > constant_deviation(means.double())
    scale = torch.where(varies, deviation, 1.0)
    scaled = torch.where(varies[:, None] & varies, covariance / torch.outer(scale, scale), 0.0)
    values, vectors = principal_directions(scaled)
    kept = values > max(_ROUNDING, len(values) * torch.finfo(torch.float64).eps) * values[0]
    vectors, values = vectors[:, kept] * varies[:, None], values[kept]
    inverse: Tensor = vectors * values.rsqrt() / scale[:, None]
    if len(values) == int(varies.sum()):
        return inverse
    # A A^T is an inverse on the range of the covariance; the projection on that range makes it the pseudo-inverse.
    basis = torch.linalg.qr(vectors * scale[:, None]).Q
    pseudo_inverse: Tensor = basis @ (basis.T @ inverse)
    return pseudo_inverse


def principal_directions(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of a covariance (D,), the largest first and none negative, and its eigenvectors (D, D).

    The eigenvectors are the columns.
    """
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0).clamp(min=0), vectors.flip(1)
