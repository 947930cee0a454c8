"""Multinomial logistic regression on the features' device, for probes that are fitted many times."""

from __future__ import annotations

import torch
from torch import Tensor

# Iterations and largest entry of the gradient at which a fit ends.
STEPS = 200
_TOLERANCE = 1e-5


def fit_logistic(x: Tensor, labels: Tensor, num_classes: int, strength: float, start: Tensor | None = None) -> Tensor:
    """Minimize mean_i -log softmax(W x_i + b)_{y_i} + ||W||^2 / (2 C N) by L-BFGS; the intercept is not penalized.

    The gradient, (softmax - one-hot)^T [x, 1] / N + W / (C N), is written down instead of traced, so that a fit is two
    matrix products an iteration on whatever device the features are. It ends after 200 iterations, or when no entry of
    the gradient exceeds 1e-5: separable classes have no finite optimum at weak penalties, so that the limit is part of
    the definition. For more than two classes it is scikit-learn's ``LogisticRegression(C)``; for two, where that has
    one vector w_1 - w_0 instead of two, it is that at 2 C.

    Args:
        x: (N, D), float32 or float64.
        labels: (N,), int64, in [0, K).
        num_classes: K.
        strength: C, the inverse strength of the penalty.
        start: (K, D + 1) to start from, weights and intercept; zeros if None.

    Returns:
        (K, D + 1), the intercept last.

    Example:
        >>> fitted = fit_logistic(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), 2, strength=1.0)
        >>> fitted.shape, bool(fitted[1, 0] > 0)
        (torch.Size([2, 2]), True)
    """
    shape = (num_classes, x.shape[1] + 1)
    rows = torch.arange(len(x), device=x.device)
    fitted = torch.nn.Parameter(x.new_zeros(shape) if start is None else start.clone())
    decay = 1 / (strength * len(x))
    solver = torch.optim.LBFGS(
        [fitted], max_iter=STEPS, tolerance_grad=_TOLERANCE, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def value() -> Tensor:
        now = fitted.detach()
        weight = now[:, :-1]
        log_p = torch.addmm(now[:, -1], x, weight.T).log_softmax(1)
        loss = -log_p[rows, labels].mean() + decay / 2 * weight.square().sum()
        error = log_p.exp_()
        error[rows, labels] -= 1
        error /= len(x)
        fitted.grad = torch.cat([torch.addmm(decay * weight, error.T, x), error.sum(0)[:, None]], 1)
        return loss

    with torch.no_grad():
        solver.step(value)  # type: ignore[no-untyped-call]
    return fitted.detach()
