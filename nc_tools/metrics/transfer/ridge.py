"""Ridge regression on one-hot targets in closed form, with the exact leave-one-out error of every strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted ridge regression.

    Attributes:
        weight: (K, D), float64.
        bias: (K,), float64.
        strength: lambda / N of the penalty that was chosen.
        errors: Leave-one-out error of every strength that was tried, in their order.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    errors: tuple[float, ...]


def fit_ridge(x: Tensor, targets: Tensor, strengths: Sequence[float]) -> Ridge:
    """Minimize ||Y - X W^T - 1 b^T||^2 + lambda ||W||^2, lambda = N s, at the s of the least leave-one-out error.

    The prediction is linear in the targets, H Y, so that the residual of a sample that is left out and the model fitted
    anew without it is (y_i - yhat_i) / (1 - H_ii): exact, at the cost of one eigendecomposition of the smaller of
    X^T X and X X^T for all strengths together. The intercept is not penalized, and is refitted too: with centered X and
    eigenpairs (e_j, v_j) of X^T X, H_ii = 1/N + sum_j (x_i . v_j)^2 / (e_j + lambda). In float64.

    Source: Allen (1974), PRESS; Hastie, Tibshirani and Friedman (2009), eq. 7.64.

    Args:
        x: (N, D), N >= 2.
        targets: Y (N, K).
        strengths: Values of s, positive; the stronger wins ties.

    Raises:
        ValueError: If no strength is given or one is not positive.

    Example:
        >>> x = torch.tensor([[-1.0], [0.0], [1.0]])
        >>> fitted = fit_ridge(x, 2 * x, [1.0, 1e-6])
        >>> round(fitted.weight.item(), 3), fitted.strength
        (2.0, 1e-06)
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"ridge strengths must be positive, at least one, got {tuple(strengths)}")
    x, y = x.double(), targets.double()
    middle, level = x.mean(0), y.mean(0)
    x, y = x - middle, y - level
    count = len(x)
    wide = x.shape[1] > count
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    values = values.clamp(min=0)
    # Rows of ``along`` squared, weighed by the filter, are the diagonal of H but for the intercept's 1/N.
    along = vectors if wide else x @ vectors
    turned = along.T @ y
    penalties = torch.tensor(sorted(strengths, reverse=True), dtype=torch.float64, device=x.device) * count
    filters = 1 / (values + penalties[:, None])
    filters = filters * values if wide else filters
    errors = []
    for each in filters:
        residual = y - along @ (each[:, None] * turned)
        left = (1 - 1 / count - along.square() @ each).clamp(min=torch.finfo(torch.float64).eps)
        errors.append((residual / left[:, None]).square().mean())
    found = torch.stack(errors).tolist()
    best = found.index(min(found))
    penalty = penalties[best]
    inner = (1 / (values + penalty))[:, None] * turned
    weight = (x.T @ (vectors @ inner) if wide else vectors @ inner).T
    by_strength = dict(zip(sorted(strengths, reverse=True), found, strict=True))
    return Ridge(
        weight, level - weight @ middle, float(penalty) / count, tuple(by_strength[strength] for strength in strengths)
    )
