"""Vector and Dirichlet scaling: more parameters than a temperature, fitted on a hold-out, for class-wise errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores

MAX_ITERATIONS = 500


@dataclass(frozen=True)
class AffineScaling:
    """Calibrated logits: log_softmax(z) @ weight.T + bias.

    Attributes:
        weight: (K, K), float64; diagonal for vector scaling.
        bias: (K,), float64.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """Return calibrated logits (N, K), float64; their largest entry may be another than before.

        Raises:
            ValueError: If the logits have another number of classes.
        """
        if logits.ndim != 2 or logits.shape[1] != len(self.bias):
            raise ValueError(f"logits must have the shape (N, {len(self.bias)}), got {tuple(logits.shape)}")
        log_p = logits.detach().double().log_softmax(dim=1)
        return log_p @ self.weight.T.to(log_p.device) + self.bias.to(log_p.device)


def fit_vector_scaling(logits: Tensor, labels: Tensor, strength: float = 1e-2) -> AffineScaling:
    """Fit one factor and one shift a class on a hold-out: z'_k = a_k log p_k + b_k.

    For errors that differ between classes, as after training on a long tail. Unlike a temperature it can change which
    class is largest. Minimizes NLL + strength [mean_k (a_k - 1)^2 + mean_k b_k^2] by L-BFGS in float64: without the
    pull towards no change, a class that the hold-out lacks would be ruled out for ever.

    Source: Guo, Pleiss, Sun and Weinberger (2017), section 4.2, on log-probabilities instead of logits (so that a
    common shift of a sample's logits, which means nothing, changes nothing), and with the penalty.

    Args:
        logits: (N, K) of a hold-out, N >= 1.
        labels: (N,).
        strength: Of the penalty, above 0.

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

    def unpack(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = x.view(2, classes)
        return log_p * a + b, a, b

    def objective(x: Tensor) -> Tensor:
        z, a, b = unpack(x)
        return torch.nn.functional.cross_entropy(z, target) + strength * ((a - 1).square().mean() + b.square().mean())

    start = torch.cat([torch.ones(classes), torch.zeros(classes)]).double().to(log_p.device)
    _, a, b = unpack(_minimized(objective, start))
    return AffineScaling(torch.diag(a), b)


def fit_dirichlet_scaling(logits: Tensor, labels: Tensor, strength: float = 1e-2) -> AffineScaling:
    """Fit a whole linear map of the log-probabilities on a hold-out: z' = W log p + b.

    The most general of the three (K^2 + K parameters), and the one to expect overfitting from: give it a hold-out of
    many times K samples. Minimizes NLL + strength [mean over i != j of W_ij^2 + mean_k b_k^2] (off-diagonal and
    intercept regularization, ODIR) by L-BFGS in float64.

    Source: Kull et al. (2019), "Beyond temperature scaling", section 4; one strength for both parts instead of two, and
    the diagonal is pulled to 1 with it, so that classes that the hold-out lacks stay as they were.

    Args:
        logits: (N, K) of a hold-out, N >= 1.
        labels: (N,).
        strength: Of the penalty, above 0.

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
    apart = classes * (classes - 1) or 1

    def objective(x: Tensor) -> Tensor:
        w, b = x[: classes**2].view(classes, classes), x[classes**2 :]
        change = (w - identity).square()
        off, on = (change.sum() - change.diagonal().sum()) / apart, change.diagonal().mean()
        penalty = off + on + b.square().mean()
        return torch.nn.functional.cross_entropy(log_p @ w.T + b, target) + strength * penalty

    found = _minimized(objective, torch.cat([identity.flatten(), torch.zeros_like(identity[0])]))
    return AffineScaling(found[: classes**2].view(classes, classes), found[classes**2 :])


def _prepared(logits: Tensor, labels: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    if not strength > 0:
        raise ValueError(f"strength must be positive, or classes that the hold-out lacks are ruled out, got {strength}")
    scores, target = checked_scores(logits, labels)
    return scores.double().log_softmax(dim=1), target


def _minimized(objective: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Minimize a smooth convex function; scipy's L-BFGS has a line search that does not give up early."""
    from scipy.optimize import minimize  # late: a third of a second that other measures need not pay

    def value_and_slope(x: Any) -> tuple[float, Any]:
        at = torch.from_numpy(x).to(start.device).requires_grad_()
        with torch.enable_grad():
            value = objective(at)
            (slope,) = torch.autograd.grad(value, at)
        return value.item(), slope.cpu().numpy()

    options: Any = {"maxiter": MAX_ITERATIONS, "ftol": 1e-12, "gtol": 1e-8}
    origin: Any = start.cpu().numpy()
    done = minimize(value_and_slope, origin, jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(done.x).to(start.device)
