"""The simplex ETF that lies nearest to given class means."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.geometry.simplex import centered_basis

# Pull of the previous frame on what the means leave open: below what the means themselves say, above their rounding.
_TIE, _TIE_OF_ROUNDED = 1e-9, 1e-6


def nearest_simplex_etf(means: Tensor, previous: Tensor | None = None, delta: float = 0.0) -> Tensor:
    """Return the simplex ETF nearest to class means, in closed form.

    A classifier that sits where the means already lean spares the backbone the turn to an arbitrary frame. With Y the
    centered means scaled to ||Y||_F = 1 and W' the previous frame, it minimizes over all simplex ETFs W

        ||Y - W / sqrt(K)||_F^2 + (delta / 2) ((K - 1) / K) ||W - W'||_F^2.

    Every ETF is W = sqrt(K / (K - 1)) B Q^T, B the basis of :func:`centered_basis` and Q^T Q = I. In Q both terms are
    linear but for constants, so the best Q is the orthonormal (polar) factor of

        (2 / sqrt(K - 1)) Y^T B + delta Q',    Q' = sqrt((K - 1) / K) W'^T B:

    one thin singular value decomposition of a D x (K - 1) matrix.

    Source: Markou, Ajanthan and Gould (2024, "Guiding neural collapse: optimizing towards the nearest simplex
    equiangular tight frame", section 3), who solve it with a Riemannian trust region and differentiate through the
    solution, on buffers of K^2 x K^2 numbers. They write the ETF as sqrt(K / (K - 1)) C P^T with P^T P = I_K and
    C = I - 11^T / K, which needs D >= K, and measure nearness to the previous one by ||P - P'||^2. P has one direction
    that no class vector contains; here it is left out, so that the ETF exists at D = K - 1 too and nearness is that of
    the frames themselves. Without a previous frame the two are the same.

    Args:
        means: Class means (K, D), centered or not; a class without a mean is given the mean of the others. Not
            differentiated through.
        previous: A simplex ETF (K, D) to stay near to. At ``delta = 0`` too it decides what the means leave open
            (fewer than K - 1 directions between them), where the nearest ETF is not unique.
        delta: Weight of staying near, at least 0; Markou et al. use 1e-3.

    Returns:
        (K, D), float64, on the device of the means.

    Raises:
        ValueError: If K < 2, D < K - 1, the means are not finite, delta is negative, or there is a delta and no
            previous frame.

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
        # The basis centers by itself: its columns sum to zero. Its rows are orthonormal on what is centered, so that
        # the norm of the product is that of the centered means.
        wide = means.detach().to(torch.float64)
        pull = wide.T @ basis
        norm = torch.linalg.matrix_norm(pull)
        # Means that are all one ask for nothing: what is left of them is rounding, and is not to be scaled up.
        norm = torch.where(norm > 1e-12 * torch.linalg.matrix_norm(wide), norm, math.inf)
        pull = pull * (2 / math.sqrt(num_classes - 1)) / norm
        if previous is not None:
            before = math.sqrt((num_classes - 1) / num_classes) * (previous.detach().to(pull).T @ basis)
            pull = pull + max(delta, _TIE if means.dtype == torch.float64 else _TIE_OF_ROUNDED) * before
        left, _, right = torch.linalg.svd(pull, full_matrices=False)
        etf: Tensor = math.sqrt(num_classes / (num_classes - 1)) * (basis @ (left @ right).T)
    return etf


def _check(means: Tensor, previous: Tensor | None, delta: float) -> None:
    if means.ndim != 2 or len(means) < 2:
        raise ValueError(f"means must be a (K, D) matrix of at least 2 classes, got shape {tuple(means.shape)}")
    num_classes, feature_dim = means.shape
    if feature_dim < num_classes - 1:
        raise ValueError(
            f"a simplex ETF of {num_classes} classes needs feature_dim >= {num_classes - 1}, got {feature_dim}: "
            f"put a projection to at least {num_classes - 1} dimensions before it (projection={num_classes - 1})"
        )
    if not (math.isfinite(delta) and delta >= 0):
        raise ValueError(f"delta must be finite and at least 0, got {delta}: 0 forgets the previous frame")
    if previous is None and delta > 0:
        raise ValueError(f"delta={delta} holds on to a previous frame, but there is none: give previous=, or delta=0")
    if previous is not None and previous.shape != means.shape:
        raise ValueError(f"previous must have the means' shape {tuple(means.shape)}, got {tuple(previous.shape)}")
    if not bool(torch.isfinite(means).all()):
        raise ValueError("means must be finite, but some are NaN or infinite: leave out the samples that made them so")
