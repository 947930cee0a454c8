"""Squared error of logits against one-hot targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nc_tools.losses.per_sample import PerSampleLoss, checked_logits
from nc_tools.records import Batch, Outputs


def mean_squared(logits: Tensor, labels: Tensor, kappa: float = 1.0, target: float = 1.0) -> Tensor:
    """Rescaled squared error of the logits, per sample. See :class:`MeanSquaredLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        kappa: Weight of the own class.
        target: M, what the own class's logit should be.

    Returns:
        (N,): (1 / K) [sum_{k != y} z_k^2 + kappa (z_y - M)^2].

    Example:
        >>> mean_squared(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
        tensor([2.])
    """
    z = checked_logits(logits, labels)
    # One pass each way through mse_loss; the own class's further weight is a term of its own.
    wanted = torch.zeros_like(z).scatter_(1, labels.unsqueeze(1), target)
    squares = nn.functional.mse_loss(z, wanted, reduction="none").sum(dim=1)
    if kappa != 1:
        own = -nn.functional.nll_loss(z, labels, reduction="none")
        squares = squares + (kappa - 1) * (own - target).square()
    return squares / z.shape[1]


class MeanSquaredLoss(PerSampleLoss):
    """Rescaled squared error: (1 / K) [sum_{k != y} z_k^2 + kappa (z_y - M)^2].

    Trains classifiers about as well as cross-entropy, and is where neural collapse can be followed in closed form.
    For small K, kappa = M = 1; with many classes the own class needs more weight and a larger target, or it drowns
    among the others: kappa = 15, M = 30 for ImageNet. Source: Hui and Belkin 2021.

    On a head with unit features its scale bounds the logits: M must lie within it.

    Args:
        kappa: Weight of the own class, positive.
        target: M, positive.

    Raises:
        ValueError: If kappa or the target is not positive.

    Example:
        >>> MeanSquaredLoss(kappa=15, target=30)
        MeanSquaredLoss(kappa=15, target=30)
    """

    def __init__(self, kappa: float = 1.0, target: float = 1.0) -> None:
        super().__init__()
        for name, value in (("kappa", kappa), ("target", target)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        self.kappa = kappa
        self.target = target

    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the squared error of each sample (N,)."""
        return mean_squared(outputs.logits, batch.labels, self.kappa, self.target)

    def extra_repr(self) -> str:
        """Show weight and target in the loss's printout."""
        return f"kappa={self.kappa}, target={self.target}"
