"""Label relaxation: no loss for predictions that are sure enough of the label."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from nc_tools.losses._one_softmax import OneSoftmaxLoss, of_nll
from nc_tools.losses._rows import Reduction, rows_of


def label_relaxation(logits: Tensor, labels: Tensor, alpha: float = 0.1, reduction: Reduction = "none") -> Tensor:
    """Return the KL divergence from a relaxed label, 0 where the label's class has at least 1 - alpha.

    See :class:`LabelRelaxationLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        alpha: In (0, 1).
        reduction: "none" or "mean".

    Returns:
        (N,), or a scalar.

    Example:
        >>> label_relaxation(torch.tensor([[5.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))
        tensor([0.0000, 0.3681])
    """
    formula = partial(_relaxed, alpha=alpha)
    return rows_of(logits, labels).apply(lambda z, y, r: of_nll(z, y, formula, r), reduction)


def _relaxed(nll: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    least = -math.log1p(-alpha)
    entropy = (1 - alpha) * math.log1p(-alpha) + alpha * math.log(alpha)
    # Clamped where p_y = 1 - alpha, the divergence and its gradient are zero: no branch, and so no NaN in one.
    clamped = nll.clamp(min=least)
    missing = -torch.expm1(-clamped)  # 1 - p_y >= alpha
    value = (entropy + (1 - alpha) * clamped - alpha * missing.log()).clamp(min=0)  # rounding may leave -1e-8
    return value, (1 - alpha / missing) * (nll > least)


class LabelRelaxationLoss(OneSoftmaxLoss):
    """Label relaxation: no loss where p_y > 1 - alpha, otherwise the divergence KL(t || p) from a relaxed label.

    The target is the nearest of all distributions with t_y >= 1 - alpha: t_y = 1 - alpha, and the other classes share
    alpha as the prediction does, t_j = alpha p_j / (1 - p_y). Unlike label smoothing, it does not ask for equal logits
    of the wrong classes, and it does not change samples that are certain enough; with noisy labels it slows
    memorization. In closed form (1 - a) log((1 - a) / p_y) + a log(a / (1 - p_y)). Source: Lienen and Huellermeier
    2021, here computed in the log domain, so that saturated logits have finite gradients.

    Args:
        alpha: The probability that the wrong classes may have together, in (0, 1).

    Raises:
        ValueError: If alpha is outside (0, 1).

    Example:
        >>> LabelRelaxationLoss()(torch.tensor([[5.0, 0.0]]), torch.tensor([0]))
        tensor(0.)
    """

    def __init__(self, alpha: float = 0.1) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie in (0, 1), got {alpha}. For alpha = 0 use CrossEntropyLoss.")
        self.alpha = alpha

    def formula(self, nll: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative for each negative log-likelihood."""
        return _relaxed(nll, self.alpha)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"alpha={self.alpha}"
