"""Vector and Dirichlet scaling: more parameters than a temperature, for calibration errors that differ by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores

_MAX_ITERATIONS = 500
# The matrix of second derivatives of more parameters takes longer than 500 steps without it.
_MOST_FOR_NEWTON = 700


@dataclass(frozen=True)
class AffineScaling:
    """A fitted vector or Dirichlet scaling; calling it on logits z returns log_softmax(z) @ weight.T + bias.

    Attributes:
        weight: (K, K), float64 on the CPU; diagonal for vector scaling.
        bias: (K,), float64 on the CPU.
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
    can change the predicted class. Minimizes NLL + strength [mean_k (a_k - 1)^2 + mean_k b_k^2] in float64.
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
    rows = torch.stack([log_p, torch.ones_like(log_p)], dim=2) if 2 * classes <= _MOST_FOR_NEWTON else None

    def scores(x: Tensor) -> Tensor:
        return log_p * x[:, 0] + x[:, 1]

    def gradient(slopes: Tensor) -> Tensor:
        return torch.stack([(slopes * log_p).sum(0), slopes.sum(0)], dim=1)

    start = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(classes, 2)
    penalty = torch.full_like(start, 2 * strength / classes)
    a, b = _minimized(scores, gradient, target, start, penalty, rows).T.contiguous()
    return AffineScaling(torch.diag(a), b)


def fit_dirichlet_scaling(logits: Tensor, labels: Tensor, strength: float = 1e-2) -> AffineScaling:
    """Fit Dirichlet scaling, a linear map of the log-probabilities, on a hold-out set: z' = W @ log(p) + b.

    It is more general than a temperature and than vector scaling (K^2 + K parameters) and the most likely to overfit:
    use a hold-out set of many times K samples. Minimizes

        NLL + strength [mean_{i != j} W_ij^2 + mean_k (W_kk - 1)^2 + mean_k b_k^2]

    in float64. Above 25 classes at most 500 steps of L-BFGS are made, which may end before the minimum.

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
    rows = torch.cat([log_p, torch.ones_like(log_p[:, :1])], dim=1)

    def scores(x: Tensor) -> Tensor:
        return rows @ x.T

    def gradient(slopes: Tensor) -> Tensor:
        return slopes.T @ rows

    start = torch.eye(classes, classes + 1, dtype=torch.float64)
    penalty = torch.full_like(start, 2 * strength / classes)
    off_diagonal = ~torch.eye(classes, dtype=torch.bool)
    penalty[:, :classes][off_diagonal] /= classes - 1
    of_classes = rows.unsqueeze(1) if start.numel() <= _MOST_FOR_NEWTON else None
    solution = _minimized(scores, gradient, target, start, penalty, of_classes)
    return AffineScaling(solution[:, :-1].clone(), solution[:, -1].clone())


def _prepared(logits: Tensor, labels: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    if not strength > 0:
        raise ValueError(
            f"strength must be positive, got {strength}: without a penalty, classes without hold-out samples would get "
            "probability 0"
        )
    scores, target = checked_scores(logits, labels)
    return scores.double().cpu().log_softmax(dim=1), target.cpu()


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


def _minimized(
    scores: Callable[[Tensor], Tensor],
    gradient: Callable[[Tensor], Tensor],
    labels: Tensor,
    start: Tensor,
    penalty: Tensor,
    rows: Tensor | None,
) -> Tensor:
    """Return the parameters (K, P) that minimize NLL(scores(x)) + sum penalty (x - start)^2 / 2, a convex function.

    On the CPU in float64. With the second derivatives, scipy's trust-region method takes some ten steps to the minimum.
    Without them, L-BFGS stops near it after at most 500. Gradients are written out: autograd takes twice as long.

    Args:
        scores: Maps parameters to logits (N, K).
        gradient: Maps the NLL's gradient by the logits (N, K) to that by the parameters (K, P).
        labels: (N,).
        start: Initial parameters (K, P), float64.
        penalty: (K, P).
        rows: The derivatives of each logit by the parameters of its class (N, K or 1, P); None for L-BFGS.
    """
    from scipy.optimize import minimize  # here, because the import takes a third of a second

    def value_and_gradient(x: Any) -> tuple[float, Any]:
        parameters = torch.from_numpy(x).view_as(start)
        nll, slopes = _nll_and_slopes(scores(parameters), labels)
        pull = penalty * (parameters - start)
        value = nll + (pull * (parameters - start)).sum() / 2
        return value.item(), (gradient(slopes) + pull).flatten().numpy()

    def hessian(x: Any) -> Any:
        assert rows is not None  # noqa: S101 (only called with it)
        parameters = torch.from_numpy(x).view_as(start)
        second = _second_derivatives(scores(parameters).softmax(1), rows)
        second.diagonal().add_(penalty.flatten())
        return second.numpy()

    origin: Any = start.flatten().numpy()
    if rows is None:
        options: Any = {"maxiter": _MAX_ITERATIONS, "ftol": 1e-12, "gtol": 1e-8}
        result = minimize(value_and_gradient, origin, jac=True, method="L-BFGS-B", options=options)
    else:
        options = {"gtol": 1e-9, "maxiter": _MAX_ITERATIONS}
        result = minimize(value_and_gradient, origin, jac=True, hess=hessian, method="trust-exact", options=options)
    return torch.from_numpy(result.x).view_as(start)


def _second_derivatives(p: Tensor, rows: Tensor) -> Tensor:
    """Return the second derivatives (K P, K P) of the mean NLL by the parameters of all classes.

    For one sample they are (diag(p) - p p^T), each entry times the product of the rows of its two classes.

    Args:
        p: Probabilities (N, K).
        rows: The derivatives of each logit by the parameters of its class (N, K or 1, P).
    """
    from scipy.linalg.blas import dsyrk  # computes one triangle, in half the time of the whole product

    weighted = p.unsqueeze(2) * rows
    classes, width = weighted.shape[1:]
    triangle = torch.from_numpy(dsyrk(-1.0, weighted.flatten(1).T.numpy()))
    second = triangle + triangle.triu(1).T
    if rows.shape[1] == 1:
        blocks = (weighted.flatten(1).T @ rows[:, 0]).view(classes, width, width)
    else:
        blocks = torch.einsum("nki,nkj->kij", weighted, rows)
    # The blocks on the diagonal, entries (k, i, k, j), as a view (i, j, k).
    second.view(classes, width, classes, width).diagonal(dim1=0, dim2=2).add_(blocks.permute(1, 2, 0))
    return second.div_(len(p))
