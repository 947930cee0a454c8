"""The directions of a covariance, the largest first, and a whitening matrix of those in which samples vary."""

from __future__ import annotations

import torch
from torch import Tensor

# Eigenvalues of a covariance up to this share of the largest, for features scaled to unit variance, are rounding: that
# of float32 features of up to ten times their deviation, and that of the covariance in float64.
_ROUNDING = 1e-12
# A float32 feature that is not constant has a deviation of at least 6e-8 / sqrt(N) of its size. Sums of a constant in
# float64 err by less than 1e-12 of it.
_CONSTANT = 4096 * torch.finfo(torch.float64).eps


def constant_deviation(means: Tensor) -> Tensor:
    """Return the deviation of each feature (D,) up to which it is constant, from means (K, D): the rounding of sums."""
    return means.abs().amax(dim=0) * _CONSTANT


def whitening(covariance: Tensor, means: Tensor) -> Tensor:
    """Return a whitening matrix A (D, r) of a covariance of rank r: A A^T is its pseudo-inverse.

    So ||A^T x||^2 = x^T cov^+ x, the squared Mahalanobis length of x within the directions of the covariance.

    The rank is decided for features scaled to unit variance, so that it depends neither on the unit of a feature nor on
    the type in which the features are stored. An eigenvalue counts as zero up to 1e-12 of the largest (or D 2.2e-16, if
    larger): a deviation of a millionth, which in float32 features is rounding.

    A cut at D 1.2e-7 of the largest *eigenvalue*, as of inverses in float32, would leave out all directions with less
    than 1 % of the largest deviation. In trained networks those are most, and outliers are seen in them.

    Args:
        covariance: (D, D), float64.
        means: The means (K, D) about which it was computed: a deviation of 1e-12 of them is the rounding of sums.

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
    """Return the eigenvalues of a covariance, the largest first and none negative, and its eigenvectors (D, D).

    Eigenvectors are columns.
    """
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0).clamp(min=0), vectors.flip(1)
