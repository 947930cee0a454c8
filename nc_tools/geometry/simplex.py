"""The simplex equiangular tight frame (ETF)."""

import math

import torch
from torch import Tensor

from nc_tools.geometry.rotation import haar_frame


def centered_basis(num_classes: int) -> Tensor:
    """Return an orthonormal basis of the K-vectors whose entries sum to zero (the Helmert contrasts).

    Args:
        num_classes: K, at least 2.

    Returns:
        (K, K - 1), float64: columns orthonormal, each summing to zero. Closed form, no decomposition.

    Raises:
        ValueError: If K < 2.

    Example:
        >>> b = centered_basis(4)
        >>> bool((b.sum(0).abs() < 1e-15).all())
        True
    """
    order = _orders(num_classes)
    # Column j (from 1): j equal entries, then -j in row j, then zeros, over sqrt(j (j + 1)).
    basis = torch.ones(num_classes, num_classes - 1, dtype=torch.float64, device="cpu").triu_()
    basis.diagonal(-1).copy_(-order)
    return basis.div_(_lengths(order))


def simplex_etf(num_classes: int, feature_dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Return a simplex ETF: K unit vectors in D dimensions, all pairs at the same, largest possible angle.

    W = sqrt(K / (K - 1)) B Q^T, with B an orthonormal basis of the zero-sum vectors (K, K - 1) and Q a frame of K - 1
    orthonormal columns in D dimensions. Then ||w_k|| = 1 and w_i . w_j = -1 / (K - 1) for i != j. On balanced data,
    class means and classifier rows converge to this geometry at the end of training (Papyan, Han & Donoho 2020, eq. 4).

    The usual form sqrt(K / (K - 1)) (I - 11^T / K) P^T needs D >= K. This form gives the same frame for D >= K, and
    also exists for D = K - 1, the smallest possible dimension. Without a rotation and with D = K - 1 it is the closed
    form of the recursion of Kasarla et al. (2022, eq. 1), up to an orthogonal map.

    Cost: the product with B is a running sum, O(K D); drawing Q takes about 2 D K^2 operations.

    Args:
        num_classes: K, at least 2.
        feature_dim: D, at least K - 1.
        generator: CPU generator that draws a Haar rotation; if None, the frame spans the first K - 1 axes.

    Returns:
        (K, D), float64, on the CPU, exact to 1e-12.

    Raises:
        ValueError: If K < 2 or D < K - 1.

    Example:
        >>> w = simplex_etf(3, 4, generator=torch.Generator().manual_seed(0))
        >>> [round(float(v), 3) for v in (w @ w.T)[0]]
        [1.0, -0.5, -0.5]
    """
    order = _orders(num_classes)
    if feature_dim < num_classes - 1:
        raise ValueError(
            f"a simplex ETF of {num_classes} classes needs feature_dim >= {num_classes - 1}, got {feature_dim}: "
            f"give the head projection={num_classes - 1} (or more), a learned linear map to that many dimensions, or "
            f"use SphericalCodeHead"
        )
    scale = math.sqrt(num_classes / (num_classes - 1))
    if generator is None:
        return torch.nn.functional.pad(centered_basis(num_classes).mul_(scale), (0, feature_dim - num_classes + 1))
    rows = haar_frame(feature_dim, num_classes - 1, generator=generator).T
    rows *= (scale / _lengths(order)).unsqueeze(1)
    # Row k of B Q^T is the sum of the scaled rows after k, minus k times row k. Every step is in place, because each of
    # these matrices takes 1.3 GB at K = 10,000 and D = 16,384.
    frame = torch.empty(num_classes, feature_dim, dtype=torch.float64, device="cpu")
    torch.cumsum(rows, 0, out=frame[1:])
    frame[0] = frame[-1]
    frame[1:].neg_().add_(frame[0]).addcmul_(rows, order.unsqueeze(1), value=-1)
    return frame


def _orders(num_classes: int) -> Tensor:
    """Return 1 .. K - 1."""
    if num_classes < 2:
        raise ValueError(f"a class geometry needs at least 2 classes, got {num_classes}")
    return torch.arange(1, num_classes, dtype=torch.float64, device="cpu")


def _lengths(order: Tensor) -> Tensor:
    """Return the lengths of the Helmert contrasts: j ones and one -j."""
    return torch.sqrt(order * (order + 1))
