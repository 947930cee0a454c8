"""Multinomial logistic regression on the device of the features, for probes that are fitted many times."""

from __future__ import annotations

import torch
from torch import Tensor

# A fit ends after this many iterations (PyTorch then allows 250 evaluations of the gradient), or when no entry of the
# gradient is larger than the tolerance.
_STEPS = 200


def fit_logistic(
    x: Tensor,
    labels: Tensor,
    num_classes: int,
    strength: float,
    start: Tensor | None = None,
    *,
    tolerance: float = 1e-5,
) -> Tensor:
    """Fit a multinomial logistic regression by L-BFGS.

    Minimizes mean_i -log softmax(W x_i + b)_{y_i} + ||W||^2 / (2 C N); the intercept is not penalized. The gradient,
    (softmax - one-hot)^T [x, 1] / N + W / (C N), is written out instead of using autograd, so that each iteration costs
    two matrix products, on the device of the features. A fit ends after 200 iterations or 250 evaluations of the
    gradient, or when no entry of the gradient exceeds the tolerance. With a weak penalty and separable classes, the
    optimum is so far from zero that it may not be reached, so the limits are part of the definition. For more than two
    classes the result is that of scikit-learn's ``LogisticRegression(C)``. For two classes, where scikit-learn has one
    vector w_1 - w_0 instead of two, it is that of ``LogisticRegression(2 C)``.

    Args:
        x: (N, D), float32 or float64.
        labels: (N,), int64, in [0, K).
        num_classes: K.
        strength: C, the inverse strength of the penalty.
        start: Start of the iteration (K, D + 1), weights and intercept; None for zeros.
        tolerance: Largest entry of the gradient at the end.

    Returns:
        Weights and intercept (K, D + 1), the intercept last.

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
        [fitted], max_iter=_STEPS, tolerance_grad=tolerance, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def loss_and_gradient() -> Tensor:
        current = fitted.detach()
        weight = current[:, :-1]
        log_p = torch.addmm(current[:, -1], x, weight.T).log_softmax(1)
        loss = -log_p[rows, labels].mean() + decay / 2 * weight.square().sum()
        error = log_p.exp_()
        error[rows, labels] -= 1
        error /= len(x)
        fitted.grad = torch.cat([torch.addmm(decay * weight, error.T, x), error.sum(0)[:, None]], 1)
        return loss

    with torch.no_grad():
        solver.step(loss_and_gradient)  # type: ignore[no-untyped-call]
    return fitted.detach()
