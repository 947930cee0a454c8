"""Squared error of logits against one-hot targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nc_tools.losses._rows import rows_of
from nc_tools.losses.logit_loss import LogitLoss


def mean_squared(logits: Tensor, labels: Tensor, kappa: float = 1.0, target: float = 1.0) -> Tensor:
    """Return the rescaled squared error of the logits for each sample. See :class:`MeanSquaredLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        kappa: Weight of the label's class.
        target: M, the target of the label's logit.

    Returns:
        (N,): (1 / K) * [sum_{k != y} z_k^2 + kappa * (z_y - M)^2].

    Example:
        >>> mean_squared(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
        tensor([2.])
    """
    return rows_of(logits, labels).apply(lambda z, y, _: _squared(z, y, kappa, target), "none")


def _squared(z: Tensor, labels: Tensor, kappa: float, target: float) -> Tensor:
    # mse_loss takes one pass forward and one backward. It gives the label's class weight 1; a term adds kappa - 1.
    one_hot = torch.zeros_like(z).scatter_(1, labels.unsqueeze(1), target)
    squares = nn.functional.mse_loss(z, one_hot, reduction="none").sum(dim=1)
    if kappa != 1:
        own = -nn.functional.nll_loss(z, labels, reduction="none")
        squares = squares + (kappa - 1) * (own - target).square()
    return squares / z.shape[1]


class MeanSquaredLoss(LogitLoss):
    """Rescaled squared error: (1 / K) * [sum_{k != y} z_k^2 + kappa * (z_y - M)^2].

    It trains classifiers about as well as cross-entropy, and neural collapse can be derived for it in closed form. For
    small K use kappa = M = 1. With many classes the label's class needs more weight and a larger target, because the
    other classes outnumber it: kappa = 15, M = 30 for ImageNet. Source: Hui and Belkin 2021.

    With a head of unit features the scale bounds the logits, so M must not be larger than the scale.

    Args:
        kappa: Weight of the label's class, positive.
        target: M, positive.

    Raises:
        ValueError: If kappa or the target is not positive and finite.

    Example:
        >>> MeanSquaredLoss(kappa=15, target=30)(torch.tensor([[30.0, 0.0]]), torch.tensor([0]))
        tensor(0.)
    """

    def __init__(self, kappa: float = 1.0, target: float = 1.0) -> None:
        super().__init__()
        for name, value in (("kappa", kappa), ("target", target)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        self.kappa = kappa
        self.target = target

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the squared error of each sample (N,)."""
        return _squared(logits, labels, self.kappa, self.target)

    def per_sample_from_probabilities(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the squared error (N,) expected over probabilities t of the classes: sum_y t_y loss(z, y)."""
        squares, mass = logits.square(), targets.sum(1, keepdim=True)
        own = self.kappa * (logits - self.target).square() - squares
        return (squares * mass + targets * own).sum(1) / logits.shape[1]

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"kappa={self.kappa}, target={self.target}"
