"""The simplex ETF nearest to given class means, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.geometry.simplex import centered_basis

# Smallest weight of the previous frame, which decides the directions that the means leave open. The weight is too small
# to change what the means decide, and larger than their rounding error: in float64, and in float32 or lower precision.
_MIN_DELTA, _MIN_DELTA_FLOAT32 = 1e-9, 1e-6


def nearest_simplex_etf(means: Tensor, previous: Tensor | None = None, delta: float = 0.0) -> Tensor:
    """Return the simplex ETF (K unit vectors at equal angles) nearest to class means, in closed form.

    With class vectors near the current class means, the backbone does not have to rotate its features to an arbitrary
    frame. Let Y be the centered means scaled to ||Y||_F = 1, and W' the previous frame. The result minimizes, over all
    simplex ETFs W,

        ||Y - W / sqrt(K)||_F^2 + (delta / 2) ((K - 1) / K) ||W - W'||_F^2.

    Every ETF is W = sqrt(K / (K - 1)) B Q^T, B the basis of :func:`centered_basis` and Q^T Q = I. Up to constants,
    both terms are linear in Q, so the best Q is the orthonormal (polar) factor of

        (2 / sqrt(K - 1)) Y^T B + delta Q',    Q' = sqrt((K - 1) / K) W'^T B:

    one thin singular value decomposition of a D x (K - 1) matrix.

    Source: Markou, Ajanthan and Gould (2024, "Guiding neural collapse: optimizing towards the nearest simplex
    equiangular tight frame", section 3), who solve it with a Riemannian trust region and differentiate through the
    solution, on buffers of K^2 x K^2 numbers. They write the ETF as sqrt(K / (K - 1)) C P^T with P^T P = I_K and
    C = I - 11^T / K, which needs D >= K, and measure the distance to the previous frame by ||P - P'||^2. P has one
    direction that no class vector contains. Here this direction is left out: the ETF then exists for D = K - 1 too, and
    the distance is that of the frames themselves. Without a previous frame both forms give the same ETF.

    Args:
        means: Class means (K, D), centered or not. For a class without a mean, pass the mean of the other classes. No
            gradient flows through them.
        previous: A simplex ETF (K, D) to stay near. If the means span fewer than K - 1 directions, the nearest ETF is
            not unique; the previous one then decides, with ``delta = 0`` too.
        delta: Weight of the distance to the previous ETF, at least 0; Markou et al. use 1e-3.

    Returns:
        (K, D), float64, on the device of the means.

    Raises:
        ValueError: If K < 2, D < K - 1, the means are not finite, delta is negative or not finite, ``previous`` does
            not have the shape of the means, or delta > 0 without ``previous``.

    Example:
        >>> from nc_tools.geometry import simplex_etf
        >>> etf = simplex_etf(3, 5, generator=torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(nearest_simplex_etf(7 * etf + 2), etf))
        True
    """
    _check(means, previous, delta)
    num_classes = len(means)
    with torch.no_grad():
        basis = centered_basis(num_classes).to(means.device)
        # The product with the basis centers the means, because its columns sum to zero, and keeps their norm.
        wide = means.detach().to(torch.float64)
        pull = wide.T @ basis
        norm = torch.linalg.matrix_norm(pull)
        # If all means are equal, only rounding errors are left of them, which must not be scaled up.
        norm = torch.where(norm > 1e-12 * torch.linalg.matrix_norm(wide), norm, math.inf)
        pull = pull * (2 / math.sqrt(num_classes - 1)) / norm
        if previous is not None:
            previous_q = math.sqrt((num_classes - 1) / num_classes) * (previous.detach().to(pull).T @ basis)
            pull = pull + max(delta, _MIN_DELTA if means.dtype == torch.float64 else _MIN_DELTA_FLOAT32) * previous_q
        left, _, right = torch.linalg.svd(pull, full_matrices=False)
        etf: Tensor = math.sqrt(num_classes / (num_classes - 1)) * (basis @ (left @ right).T)
    return etf


def _check(means: Tensor, previous: Tensor | None, delta: float) -> None:
    if means.ndim != 2 or len(means) < 2:
        raise ValueError(f"means must have the shape (K, D) with at least 2 classes, got {tuple(means.shape)}")
    num_classes, feature_dim = means.shape
    if feature_dim < num_classes - 1:
        raise ValueError(
            f"a simplex ETF of {num_classes} classes needs feature_dim >= {num_classes - 1}, got {feature_dim}: "
            f"give the head projection={num_classes - 1} (or more), a learned linear map to that many dimensions"
        )
    if not (math.isfinite(delta) and delta >= 0):
        raise ValueError(f"delta must be finite and at least 0, got {delta}")
    if previous is None and delta > 0:
        raise ValueError(
            f"delta={delta} needs a previous ETF, got previous=None: pass the ETF of the last call, or delta=0"
        )
    if previous is not None and previous.shape != means.shape:
        raise ValueError(f"previous must have the shape of means, {tuple(means.shape)}, got {tuple(previous.shape)}")
    if not bool(torch.isfinite(means).all()):
        raise ValueError("means must be finite, got NaN or inf: remove samples with such features")
