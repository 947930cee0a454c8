"""Vector and Dirichlet scaling: more parameters than a temperature, for calibration errors that differ by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores

_MAX_ITERATIONS = 500


@dataclass(frozen=True)
class AffineScaling:
    """A fitted vector or Dirichlet scaling; calling it on logits z returns log_softmax(z) @ weight.T + bias.

    Attributes:
        weight: (K, K), float64; diagonal for vector scaling.
        bias: (K,), float64.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """Return calibrated logits (N, K), float64; the predicted class may change.

        Raises:
            ValueError: If the logits have another number of classes.
        """
        if logits.ndim != 2 or logits.shape[1] != len(self.bias):
            raise ValueError(f"logits must have the shape (N, {len(self.bias)}), got {tuple(logits.shape)}")
        log_p = logits.detach().double().log_softmax(dim=1)
        return log_p @ self.weight.T.to(log_p.device) + self.bias.to(log_p.device)


def fit_vector_scaling(logits: Tensor, labels: Tensor, strength: float = 1e-2) -> AffineScaling:
    """Fit vector scaling, a factor and a shift for each class, on a hold-out set: z'_k = a_k * log(p_k) + b_k.

    Use it for calibration errors that differ between classes, as after training on a long tail. Unlike a temperature it
    can change the predicted class. Minimizes NLL + strength [mean_k (a_k - 1)^2 + mean_k b_k^2] by L-BFGS in float64.
    Without the penalty, a class without samples in the hold-out set would get probability 0.

    Source: Guo, Pleiss, Sun and Weinberger (2017), section 4.2. Here it acts on log-probabilities instead of logits,
    so that a common shift of a sample's logits changes nothing, and has the penalty.

    Args:
        logits: (N, K) of the hold-out set, N >= 1.
        labels: (N,).
        strength: Strength of the penalty, positive.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If the strength is not positive, or as ``calibration``.

    Example:
        >>> fitted = fit_vector_scaling(torch.tensor([[2.0, 0.0]]).repeat(4, 1), torch.tensor([0, 0, 1, 1]), 1e-6)
        >>> [round(float(p), 2) for p in fitted(torch.tensor([[2.0, 0.0]])).softmax(1)[0]]
        [0.5, 0.5]
    """
    log_p, target = _prepared(logits, labels, strength)
    classes = log_p.shape[1]

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.view(2, classes)
        nll, slopes = _nll_and_slopes(log_p * a + b, target)
        penalty = strength * ((a - 1).square().mean() + b.square().mean())
        per_class = 2 * strength / classes
        return nll + penalty, torch.cat([
            (slopes * log_p).sum(0) + per_class * (a - 1),
            slopes.sum(0) + per_class * b,
        ])  # fmt: skip

    start = torch.cat([torch.ones(classes), torch.zeros(classes)]).double().to(log_p.device)
    a, b = _minimized(objective, start).view(2, classes)
    return AffineScaling(torch.diag(a), b)


def fit_dirichlet_scaling(logits: Tensor, labels: Tensor, strength: float = 1e-2) -> AffineScaling:
    """Fit Dirichlet scaling, a linear map of the log-probabilities, on a hold-out set: z' = W @ log(p) + b.

    It is more general than a temperature and than vector scaling (K^2 + K parameters) and the most likely to overfit:
    use a hold-out set of many times K samples. Minimizes

        NLL + strength [mean_{i != j} W_ij^2 + mean_k (W_kk - 1)^2 + mean_k b_k^2]

    by L-BFGS in float64.

    Source: Kull et al. (2019), "Beyond temperature scaling", section 4 (off-diagonal and intercept regularization,
    ODIR). Here one strength serves all parts. The penalty of the diagonal is added, because without it nothing limits
    W_kk for a class without samples in the hold-out set.

    Args:
        logits: (N, K) of the hold-out set, N >= 1.
        labels: (N,).
        strength: Strength of the penalty, positive.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If the strength is not positive, or as ``calibration``.

    Example:
        >>> fitted = fit_dirichlet_scaling(torch.tensor([[2.0, 0.0]]).repeat(4, 1), torch.tensor([0, 0, 1, 1]), 1e-6)
        >>> [round(float(p), 2) for p in fitted(torch.tensor([[2.0, 0.0]])).softmax(1)[0]]
        [0.5, 0.5]
    """
    log_p, target = _prepared(logits, labels, strength)
    classes = log_p.shape[1]
    identity = torch.eye(classes, dtype=torch.float64, device=log_p.device)
    shares = torch.full_like(identity, 1 / (classes * (classes - 1) or 1)).fill_diagonal_(1 / classes)

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        w, b = x[: classes**2].view(classes, classes), x[classes**2 :]
        nll, slopes = _nll_and_slopes(log_p @ w.T + b, target)
        weighted = shares * (w - identity)
        penalty = strength * ((weighted * (w - identity)).sum() + b.square().mean())
        return nll + penalty, torch.cat([
            (slopes.T @ log_p + 2 * strength * weighted).flatten(),
            slopes.sum(0) + 2 * strength / classes * b,
        ])  # fmt: skip

    solution = _minimized(objective, torch.cat([identity.flatten(), torch.zeros_like(identity[0])]))
    return AffineScaling(solution[: classes**2].view(classes, classes), solution[classes**2 :])


def _prepared(logits: Tensor, labels: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    if not strength > 0:
        raise ValueError(
            f"strength must be positive, got {strength}: without a penalty, classes without hold-out samples would get "
            "probability 0"
        )
    scores, target = checked_scores(logits, labels)
    return scores.double().log_softmax(dim=1), target


def _nll_and_slopes(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean negative log-likelihood of logits z (N, K), and its gradient (N, K): (softmax(z) - 1_y) / N."""
    own = labels.unsqueeze(1)
    z = z - z.amax(1, keepdim=True)
    at_label = z.gather(1, own)
    p = z.exp_()
    total = p.sum(1, keepdim=True)
    nll = (total.log() - at_label).mean()
    p /= total
    return nll, p.scatter_add_(1, own, torch.full_like(at_label, -1)).div_(len(z))


def _minimized(objective: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor) -> Tensor:
    """Return the minimizer (P,) of a smooth convex function, found by scipy's L-BFGS.

    scipy's line search does not stop early. The gradient is written out, because the function is evaluated some hundred
    times and autograd takes twice as long.

    Args:
        objective: Maps parameters (P,) to the value and the gradient (P,).
        start: Initial parameters (P,), float64.
    """
    from scipy.optimize import minimize  # here, because the import takes a third of a second

    def value_and_gradient(x: Any) -> tuple[float, Any]:
        value, gradient = objective(torch.from_numpy(x).to(start.device))
        return value.item(), gradient.cpu().numpy()

    options: Any = {"maxiter": _MAX_ITERATIONS, "ftol": 1e-12, "gtol": 1e-8}
    origin: Any = start.cpu().numpy()
    result = minimize(value_and_gradient, origin, jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(result.x).to(start.device)
