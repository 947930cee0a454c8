"""Ridge regression in closed form, with the exact leave-one-out error of every penalty strength."""

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
        strength: The chosen strength of the penalty, lambda / N.
        errors: Mean squared leave-one-out error of each strength, in the order in which the strengths were given.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    errors: tuple[float, ...]


def fit_ridge(x: Tensor, targets: Tensor, strengths: Sequence[float]) -> Ridge:
    """Fit a ridge regression with the penalty strength that has the smallest leave-one-out error.

    Minimizes ||Y - X W^T - 1 b^T||^2 + lambda ||W||^2 with lambda = N s, for every s in ``strengths``. The predictions
    are linear in the targets, H Y. So the residual of sample i under the model that is fitted without it, with the same
    lambda and a new intercept, is exactly (y_i - yhat_i) / (1 - H_ii). With centered X and eigenpairs (e_j, v_j) of X^T
    X,

        H_ii = 1/N + sum_j (x_i . v_j)^2 / (e_j + lambda),

    since the intercept is not penalized. All strengths together cost one eigendecomposition of the smaller of X^T X and
    X X^T. Computed in float64.

    Source: Allen (1974), PRESS; Hastie, Tibshirani and Friedman (2009), eq. 7.64.

    Args:
        x: (N, D), N >= 2.
        targets: Y (N, K).
        strengths: Values of s, positive. Of two with the same error, the stronger is chosen.

    Raises:
        ValueError: If no strength is given or one is not positive.

    Example:
        >>> x = torch.tensor([[-1.0], [0.0], [1.0]])
        >>> fitted = fit_ridge(x, 2 * x, [1.0, 1e-6])
        >>> round(fitted.weight.item(), 3), fitted.strength
        (2.0, 1e-06)
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"ridge strengths must be positive, and at least one must be given, got {tuple(strengths)}")
    x, y = x.double(), targets.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    count = len(x)
    wide = x.shape[1] > count
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    values = values.clamp(min=0)
    # The squared rows of ``along``, weighted by the filter, are the diagonal of H without the 1/N of the intercept.
    along = vectors if wide else x @ vectors
    projected = along.T @ y
    penalties = torch.tensor(sorted(strengths, reverse=True), dtype=torch.float64, device=x.device) * count
    filters = 1 / (values + penalties[:, None])
    filters = filters * values if wide else filters
    errors = []
    for weights in filters:
        residual = y - along @ (weights[:, None] * projected)
        left_out = (1 - 1 / count - along.square() @ weights).clamp(min=torch.finfo(torch.float64).eps)
        errors.append((residual / left_out[:, None]).square().mean())
    mean_errors = torch.stack(errors).tolist()
    best = mean_errors.index(min(mean_errors))
    penalty = penalties[best]
    inner = (1 / (values + penalty))[:, None] * projected
    weight = (x.T @ (vectors @ inner) if wide else vectors @ inner).T
    by_strength = dict(zip(sorted(strengths, reverse=True), mean_errors, strict=True))
    return Ridge(
        weight, mean_y - weight @ mean_x, float(penalty) / count, tuple(by_strength[strength] for strength in strengths)
    )
