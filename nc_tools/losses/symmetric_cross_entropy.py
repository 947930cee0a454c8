"""Symmetric cross-entropy: cross-entropy plus reverse cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.losses._arguments import check_log_zero, check_weights
from nc_tools.losses._one_softmax import OneSoftmaxLoss, of_nll
from nc_tools.losses._rows import rows_of


def reverse_cross_entropy(logits: Tensor, labels: Tensor, log_zero: float = -4.0) -> Tensor:
    """Return the cross-entropy with label and prediction exchanged: -sum_k p_k log t_k = -A * (1 - p_y).

    The label t is one-hot, so log t_k is 0 for the label's class and log 0, replaced by A, for the others. The value is
    at most -A, which makes it robust to wrong labels. Source: Wang et al. 2019, eq. 5.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        log_zero: A, negative.

    Returns:
        (N,).

    Example:
        >>> reverse_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).tolist()
        [2.0]
    """
    return rows_of(logits, labels).apply(lambda z, y, r: of_nll(z, y, lambda nll: reverse_of(nll, log_zero), r), "none")


def reverse_of(nll: Tensor, log_zero: float) -> tuple[Tensor, Tensor]:
    """Return the reverse cross-entropy -A (1 - p_y), A = ``log_zero``, and its derivative with respect to -log p_y."""
    value = log_zero * torch.expm1(-nll)
    return value, -log_zero - value


class SymmetricCrossEntropyLoss(OneSoftmaxLoss):
    """Cross-entropy plus its bounded reverse: alpha * CE + beta * RCE, RCE = -A * (1 - p_y).

    Cross-entropy learns fast and memorizes wrong labels. The reverse term tolerates them and learns slowly. Source:
    Wang et al. 2019, eq. 7, with alpha = .1, beta = 1 and A = -4 for CIFAR-10. Most public code clamps the one-hot
    label at 1e-4 instead, which is A = log 1e-4 = -9.21, a stronger reverse term. For that write
    ``log_zero=math.log(1e-4)``.

    Args:
        alpha: Weight of cross-entropy.
        beta: Weight of reverse cross-entropy.
        log_zero: A, the value that stands for log 0.

    Raises:
        ValueError: If a weight is negative or not finite, or ``log_zero`` is not negative and finite.

    Example:
        >>> SymmetricCrossEntropyLoss()
        SymmetricCrossEntropyLoss(alpha=0.1, beta=1.0, log_zero=-4.0)
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0) -> None:
        super().__init__()
        check_weights(alpha, beta)
        check_log_zero(log_zero)
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero

    def formula(self, nll: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative for each negative log-likelihood."""
        value, slope = reverse_of(nll, self.log_zero)
        return self.alpha * nll + self.beta * value, self.alpha + self.beta * slope

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"alpha={self.alpha}, beta={self.beta}, log_zero={self.log_zero}"
