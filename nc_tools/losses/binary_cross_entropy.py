"""Binary cross-entropy over classes, with learned thresholds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nc_tools.losses._class_counts import check_width
from nc_tools.losses.per_sample import PerSampleLoss, checked_logits
from nc_tools.records import Batch, Outputs


def binary_cross_entropy(logits: Tensor, labels: Tensor, thresholds: Tensor | None = None) -> Tensor:
    """Sum over classes of the cross-entropy of "is it this class?", per sample. See :class:`BinaryCrossEntropyLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        thresholds: b (K,); None is 0.

    Returns:
        (N,): softplus(-(z_y - b_y)) + sum_{j != y} softplus(z_j - b_j).

    Example:
        >>> binary_cross_entropy(torch.zeros(1, 3), torch.tensor([0]))  # 3 log 2
        tensor([2.0794])
    """
    x = checked_logits(logits, labels)
    if thresholds is not None:
        check_width(thresholds, x)
        x = x - thresholds.to(x.dtype)
    # softplus(-x) = softplus(x) - x: no mask of the own class, no sign flipped in place.
    return nn.functional.softplus(x).sum(dim=1) + nn.functional.nll_loss(x, labels, reduction="none")


class BinaryCrossEntropyLoss(PerSampleLoss):
    """One yes-or-no question per class: softplus(-(z_y - b_y)) + sum_{j != y} softplus(z_j - b_j), b learned.

    Cross-entropy sees differences of scores within a sample; this sees the scores themselves, and pushes the own ones
    above and the others below thresholds that all samples share: see
    :func:`~nc_tools.metrics.uniform_accuracy`. It too ends in neural collapse. Source: Li et al. 2025 (BCE against CE
    in deep feature learning) and 2024 (uniform classification), where b is the classifier's bias; a sum over classes,
    as there, so that its gradients are larger than cross-entropy's.

    The thresholds are parameters of the loss: the loop trains them with the backbone's rate, without decay, and a
    checkpoint holds them. They are for heads without a bias: beside one, the two do the same. Prediction stays the
    argmax of the head's logits, without the thresholds; on imbalanced data, where rare classes get higher ones,
    leaving them out acts as an adjustment for the prior.

    Args:
        num_classes: K; a run fills it in.
        initial_threshold: Where all thresholds start. At log(K - 1) logits of zero mean a probability of 1 / K, as
            under softmax, which calms the first steps when K is large.

    Raises:
        ValueError: If K < 2 or the threshold is not finite.

    Example:
        >>> BinaryCrossEntropyLoss(3).thresholds.shape
        torch.Size([3])
    """

    def __init__(self, num_classes: int, initial_threshold: float = 0.0) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"BinaryCrossEntropy needs at least 2 classes, got {num_classes}")
        if not math.isfinite(initial_threshold):
            raise ValueError(f"initial_threshold must be finite, got {initial_threshold}: 0, or log(K - 1) for large K")
        self.thresholds = nn.Parameter(torch.full((num_classes,), float(initial_threshold)))

    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the sum over classes for each sample (N,)."""
        return binary_cross_entropy(outputs.logits, batch.labels, self.thresholds)

    def extra_repr(self) -> str:
        """Show K in the loss's printout."""
        return f"num_classes={len(self.thresholds)}"
