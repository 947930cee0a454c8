"""Symmetric cross-entropy: cross-entropy and its reverse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.losses._one_softmax import of_surprise
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def reverse_cross_entropy(logits: Tensor, labels: Tensor, log_zero: float = -4.0) -> Tensor:
    """Cross-entropy with label and prediction exchanged, per sample: -sum_k p_k log t_k = -A (1 - p_y).

    The label t is one-hot, so log t_k is 0 for the own class and log 0, replaced by A, for the others. Bounded by -A,
    which is what makes it robust. Source: Wang et al. 2019, eq. 5.

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
    return of_surprise(logits, labels, lambda s: reverse_of(s, log_zero))


def reverse_of(surprise: Tensor, log_zero: float) -> tuple[Tensor, Tensor]:
    """Return the reverse cross-entropy of samples of this surprise, and its slope: -A (1 - e^-s) and -A e^-s."""
    value = log_zero * torch.expm1(-surprise)
    return value, -log_zero - value


def checked_log_zero(log_zero: float) -> float:
    """Return A, which stands for log 0.

    Raises:
        ValueError: If it is not negative and finite.
    """
    if not -float("inf") < log_zero < 0:
        raise ValueError(
            f"log_zero stands for log 0 and must be negative and finite, got {log_zero}: the paper has -4.0"
        )
    return log_zero


class SymmetricCrossEntropyLoss(LossTerm):
    """Cross-entropy plus its bounded reverse: alpha CE + beta RCE, RCE = -A (1 - p_y).

    Cross-entropy learns fast and memorizes; the reverse term tolerates wrong labels and learns slowly. Source: Wang et
    al. 2019, eq. 7, with alpha = .1, beta = 1 and A = -4 for CIFAR-10. Most public code clamps the one-hot label at
    1e-4 instead, which is A = log 1e-4 = -9.21: a stronger reverse term under the same name. Say
    ``log_zero=math.log(1e-4)`` for that.

    Args:
        alpha: Weight of cross-entropy.
        beta: Weight of the reverse.
        log_zero: A, what stands for log 0.

    Raises:
        ValueError: If a weight is negative or ``log_zero`` is not negative.

    Example:
        >>> SymmetricCrossEntropyLoss()
        SymmetricCrossEntropyLoss(alpha=0.1, beta=1.0, log_zero=-4.0)
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0) -> None:
        super().__init__()
        if not (0 <= alpha < math.inf and 0 <= beta < math.inf):
            raise ValueError(f"the weights of a loss must be finite and not negative, got alpha={alpha}, beta={beta}")
        self.alpha, self.beta, self.log_zero = alpha, beta, checked_log_zero(log_zero)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return of_surprise(outputs.logits, batch.labels, self._formula, "mean")

    def _formula(self, s: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = reverse_of(s, self.log_zero)
        return self.alpha * s + self.beta * value, self.alpha + self.beta * slope

    def extra_repr(self) -> str:
        """Show weights and A in the loss's printout."""
        return f"alpha={self.alpha}, beta={self.beta}, log_zero={self.log_zero}"
