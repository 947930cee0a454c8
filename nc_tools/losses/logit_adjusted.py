"""Logit adjustment for class imbalance, and balanced softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.losses._class_affine import ClassAffineCrossEntropyLoss, affine_cross_entropy
from nc_tools.losses._class_counts import check_width, checked_counts, without_empty


def log_prior(class_counts: Tensor | Sequence[int]) -> Tensor:
    """Return the logarithm of each class's share of the training samples, log(n_k / n), float32 (K,).

    It is minus infinity for a class without samples.

    Raises:
        ValueError: If a count is negative or all are 0.

    Example:
        >>> log_prior([3, 1, 0]).exp().tolist()
        [0.75, 0.25, 0.0]
    """
    counts = checked_counts(class_counts)
    return (counts / counts.sum()).log().to(torch.float32)


def logit_adjusted_cross_entropy(
    logits: Tensor, labels: Tensor, class_counts: Tensor | Sequence[int], tau: float = 1.0
) -> Tensor:
    """Return the mean cross-entropy of logits plus tau * log(class shares). See :class:`LogitAdjustedLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        class_counts: Training samples of each class (K,).
        tau: Strength. 0 is plain cross-entropy.

    Returns:
        A scalar.

    Raises:
        ValueError: If a count is negative or all are 0, or tau is not finite, or negative with a class without samples.

    Example:
        >>> z, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
        >>> logit_adjusted_cross_entropy(z, y, [5, 5]).item() == torch.nn.functional.cross_entropy(z, y).item()
        True
    """
    shift = prior_shift(class_counts, tau).to(logits.device)
    return affine_cross_entropy(logits, labels, shift=shift, reduction="mean")


def adjust_logits(logits: Tensor, class_counts: Tensor | Sequence[int], tau: float = 1.0) -> Tensor:
    """Return logits minus tau * log(class shares), for a model that was trained with plain cross-entropy.

    The sign is opposite to that of the training loss. In training the shift makes the model learn logits without the
    prior. Here the model has learned the prior, and the shift removes it (Menon et al. 2021, eq. 9).

    Args:
        logits: (N, K).
        class_counts: Training samples of each class (K,).
        tau: Strength.

    Returns:
        (N, K): logits for the balanced error.

    Raises:
        ValueError: If a count is negative, a class has no sample, so that the model cannot have learned it, or tau is
            not finite.

    Example:
        >>> adjust_logits(torch.zeros(1, 2), [9, 1]).argmax().item()
        1
    """
    without_empty(class_counts, "the adjustment of logits")
    shift = prior_shift(class_counts, tau).to(logits.device)
    check_width(shift, logits)
    return at_least_float32(logits, "logits") - shift


def prior_shift(class_counts: Tensor | Sequence[int], tau: float) -> Tensor:
    """Return tau log(pi), float32 (K,), with pi the class shares.

    A class without samples gets minus infinity, which removes it from the softmax, or 0 with tau = 0.

    Raises:
        ValueError: If a count is negative or all are 0, or tau is not finite, or negative with a class without samples.
    """
    if not math.isfinite(tau):
        raise ValueError(f"tau must be finite, got {tau}. The default is 1; 0 is plain cross-entropy.")
    prior = log_prior(class_counts)
    if tau < 0:
        without_empty(class_counts, "a shift with a negative tau")
    return torch.zeros_like(prior) if tau == 0 else tau * prior


class LogitAdjustedLoss(ClassAffineCrossEntropyLoss):
    """Logit-adjusted cross-entropy: -log softmax(z + tau * log pi)_y, pi_k = n_k / n the class shares.

    It is consistent for the balanced error: the shift accounts for the training prior, so the logits z do not contain
    it (Menon et al. 2021, eq. 10). With tau = 1 it is :class:`BalancedSoftmaxLoss`. A class without training samples
    gets a shift of minus infinity, which removes it from the softmax, unless tau is 0.

    Args:
        class_counts: Training samples of each class (K,). A run fills it in.
        tau: Strength. 0 is plain cross-entropy.

    Raises:
        ValueError: If a count is negative or all are 0, or tau is not finite, or negative with a class without samples.

    Example:
        >>> loss = LogitAdjustedLoss([90, 10], tau=1.0)
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))  # -log 0.1
        tensor(2.3026)
    """

    def __init__(self, class_counts: Tensor | Sequence[int], tau: float = 1.0) -> None:
        super().__init__(shift=prior_shift(class_counts, tau))
        self.tau = tau

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"tau={self.tau}"


class BalancedSoftmaxLoss(LogitAdjustedLoss):
    """Balanced softmax: -log(n_y e^{z_y} / sum_k n_k e^{z_k}), n_k the training samples of class k.

    This is logit adjustment with tau = 1, under the name of Ren et al. (2020): log n_k and log pi_k differ by a
    constant, which the softmax ignores. The attraction-repulsion-balanced loss (Xie et al. 2023), with the counts of
    the training set, is this loss too. ``ARBLoss`` is another name of this class, so that a comparison does not count
    the two as two methods.

    Args:
        class_counts: Training samples of each class (K,). A run fills it in.

    Raises:
        ValueError: If a count is negative or all are 0.

    Example:
        >>> ARBLoss is BalancedSoftmaxLoss
        True
    """

    def __init__(self, class_counts: Tensor | Sequence[int]) -> None:
        super().__init__(class_counts, tau=1.0)


ARBLoss = BalancedSoftmaxLoss
