"""Label relaxation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.losses._one_softmax import Reduction, SurpriseFormula, of_surprise
from nc_tools.losses.per_sample import PerSampleLoss
from nc_tools.records import Batch, Outputs


def label_relaxation(logits: Tensor, labels: Tensor, alpha: float = 0.1, reduction: Reduction = "none") -> Tensor:
    """Divergence from the nearest distribution that gives the label at least 1 - alpha, per sample or as their mean.

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
    return of_surprise(logits, labels, _relaxed(alpha), reduction)


def _relaxed(alpha: float) -> SurpriseFormula:
    least = -math.log1p(-alpha)
    entropy = (1 - alpha) * math.log1p(-alpha) + alpha * math.log(alpha)

    def formula(s: Tensor) -> tuple[Tensor, Tensor]:
        # Held where p_y = 1 - alpha, the divergence and its gradient are zero: no branch, so no NaN in one.
        held = s.clamp(min=least)
        missing = -torch.expm1(-held)  # 1 - p_y >= alpha
        value = (entropy + (1 - alpha) * held - alpha * missing.log()).clamp(min=0)  # rounding may leave -1e-8
        return value, (1 - alpha / missing) * (s > least)

    return formula


class LabelRelaxationLoss(PerSampleLoss):
    """Label relaxation: no loss once p_y > 1 - alpha, the divergence KL(t || p) of a relaxed label before that.

    The target is the nearest of all distributions with t_y >= 1 - alpha: t_y = 1 - alpha, and the others share alpha as
    the prediction does, t_j = alpha p_j / (1 - p_y). Unlike smoothing, it does not ask for equal scores of the wrong
    classes, and it does not push samples that are sure enough; with noisy labels it slows memorization. In closed form
    (1 - a) log((1 - a) / p_y) + a log(a / (1 - p_y)). Source: Lienen and Huellermeier 2021; here in the
    log domain throughout, so that saturated logits give finite gradients.

    Args:
        alpha: What the wrong classes may have together, in (0, 1).

    Raises:
        ValueError: If alpha is outside (0, 1).

    Example:
        >>> LabelRelaxationLoss()
        LabelRelaxationLoss(alpha=0.1)
    """

    def __init__(self, alpha: float = 0.1) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie in (0, 1), got {alpha}: for alpha = 0 take CrossEntropy")
        self.alpha = alpha

    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the divergence of each sample (N,)."""
        return label_relaxation(outputs.logits, batch.labels, self.alpha)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return label_relaxation(outputs.logits, batch.labels, self.alpha, "mean")

    def extra_repr(self) -> str:
        """Show alpha in the loss's printout."""
        return f"alpha={self.alpha}"
