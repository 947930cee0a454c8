"""Label relaxation: no loss for predictions that give the label a high enough probability."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from nc_tools.losses._one_softmax import OneSoftmaxLoss, of_nll
from nc_tools.losses._rows import Reduction, rows_of


def label_relaxation(logits: Tensor, labels: Tensor, alpha: float = 0.1, reduction: Reduction = "none") -> Tensor:
    """Return the KL divergence of the prediction from a relaxed label; 0 where p_y is at least 1 - alpha.

    See :class:`LabelRelaxationLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        alpha: In (0, 1).
        reduction: "none", "mean" or "sum".

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
    # At p_y = 1 - alpha the divergence and its gradient are zero. So a clamp there does the work of a branch, in which
    # NaN could arise.
    clamped = nll.clamp(min=least)
    missing = -torch.expm1(-clamped)  # 1 - p_y >= alpha
    value = (entropy + (1 - alpha) * clamped - alpha * missing.log()).clamp(min=0)  # rounding may leave -1e-8
    return value, (1 - alpha / missing) * (nll > least)


class LabelRelaxationLoss(OneSoftmaxLoss):
    """Label relaxation: no loss where p_y > 1 - alpha, otherwise the divergence KL(t || p) from a relaxed label t.

    The target t is the distribution nearest to p among those with t_y >= 1 - alpha: t_y = 1 - alpha, and the other
    classes share alpha in proportion to the prediction, t_j = alpha p_j / (1 - p_y). Unlike label smoothing, it does
    not ask for equal logits of the wrong classes, and has no gradient for samples that are certain enough; with noisy
    labels it slows memorization. In closed form it is

        (1 - alpha) log((1 - alpha) / p_y) + alpha log(alpha / (1 - p_y)).

    Source: Lienen and Huellermeier 2021, here computed in the log domain, so that saturated logits have finite
    gradients.

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
