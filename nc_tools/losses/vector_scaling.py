"""The vector-scaling loss for class imbalance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools.losses._class_affine import ClassAffineCrossEntropyLoss
from nc_tools.losses._class_counts import checked_counts
from nc_tools.losses.logit_adjusted import prior_shift


def scaling_factors(class_counts: Tensor | Sequence[int], gamma: float) -> Tensor:
    """Return (n_k / n_max)^gamma, float32 (K,): 1 for the largest class, less for smaller ones.

    Raises:
        ValueError: If a count is negative or all are 0.

    Example:
        >>> scaling_factors([100, 25], 0.5).tolist()
        [1.0, 0.5]
    """
    counts = checked_counts(class_counts)
    return (counts / counts.max()).pow(gamma).to(torch.float32)


class VectorScalingLoss(ClassAffineCrossEntropyLoss):
    """Vector-scaling loss: -log softmax(a * z + tau * log pi)_y, a_k = (n_k / n_max)^gamma, pi_k = n_k / n.

    A shift alone acts early in training and loses its effect once the training data are fitted. A factor below one on
    the rare classes' logits makes the network enlarge them, and acts until the end (Kini et al. 2021). With gamma = 0
    it is :class:`~nc_tools.losses.LogitAdjustedLoss`. A class without training samples is removed from the softmax,
    unless tau is 0. The public long-tail CIFAR runs use gamma = .15 and tau = 1.25.

    Args:
        class_counts: Training samples of each class (K,). A run fills it in.
        gamma: Strength of the factor, at least 0.
        tau: Strength of the shift.

    Raises:
        ValueError: If gamma is negative, gamma or tau is not finite, tau is negative with a class without samples, or a
            count is negative or all are 0.

    Example:
        >>> VectorScalingLoss([90, 10])
        VectorScalingLoss(gamma=0.3, tau=1.0)
    """

    def __init__(self, class_counts: Tensor | Sequence[int], gamma: float = 0.3, tau: float = 1.0) -> None:
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma must be finite and not negative, got {gamma}")
        if not math.isfinite(tau):
            raise ValueError(f"tau must be finite, got {tau}. The default is 1; 0 is no shift.")
        super().__init__(factor=scaling_factors(class_counts, gamma), shift=prior_shift(class_counts, tau))
        self.gamma = gamma
        self.tau = tau

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"gamma={self.gamma}, tau={self.tau}"
