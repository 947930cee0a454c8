"""Binary cross-entropy for each class, with learned thresholds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nc_tools.losses._class_counts import check_width
from nc_tools.losses._rows import rows_of
from nc_tools.losses.logit_loss import LogitLoss


def binary_cross_entropy(logits: Tensor, labels: Tensor, thresholds: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of each class against the rest, summed over classes, for each sample.

    See :class:`BinaryCrossEntropyLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        thresholds: b (K,). None: 0.

    Returns:
        (N,): softplus(-(z_y - b_y)) + sum_{j != y} softplus(z_j - b_j).

    Example:
        >>> binary_cross_entropy(torch.zeros(1, 3), torch.tensor([0]))  # 3 log 2
        tensor([2.0794])
    """
    return rows_of(logits, labels).apply(lambda z, y, _: _one_against_rest(z, y, thresholds), "none")


def _one_against_rest(z: Tensor, labels: Tensor, thresholds: Tensor | None) -> Tensor:
    x = _above(z, thresholds)
    # softplus(-x) = softplus(x) - x, so the sum needs no mask of the label's class.
    return nn.functional.softplus(x).sum(dim=1) + nn.functional.nll_loss(x, labels, reduction="none")


def _above(z: Tensor, thresholds: Tensor | None) -> Tensor:
    if thresholds is None:
        return z
    check_width(thresholds, z)
    return z - thresholds.to(z.dtype)


class BinaryCrossEntropyLoss(LogitLoss):
    """Binary cross-entropy of each class against the rest, summed over classes, with a learned threshold for each.

    softplus(-(z_y - b_y)) + sum_{j != y} softplus(z_j - b_j), with learned thresholds b.

    Cross-entropy depends on the differences between a sample's logits. This loss depends on the logits themselves: it
    raises the logit of the label's class above thresholds that all samples share, and lowers the others below them. See
    :func:`~nc_tools.metrics.uniform_accuracy`. It also ends in neural collapse. Source: Li et al. 2025 (BCE against CE
    in deep feature learning) and 2024 (uniform classification), where b is the classifier's bias. It is a sum over
    classes, as there, so its gradients are larger than those of cross-entropy.

    The thresholds are parameters of the loss. The training loop trains them at the backbone's rate without weight
    decay, and checkpoints hold them. Use the loss with heads without a bias, which would do the same as the thresholds.
    Predictions are the argmax of the head's logits, without the thresholds. On imbalanced data rare classes get higher
    thresholds, so predictions without them act like an adjustment to the prior.

    Args:
        num_classes: K. A run fills it in.
        initial_threshold: The first value of all thresholds. With log(K - 1), logits of zero mean give a probability of
            1 / K, as under softmax, which keeps the first steps small when K is large.

    Raises:
        ValueError: If K < 2 or the threshold is not finite.

    Example:
        >>> loss = BinaryCrossEntropyLoss(3)
        >>> loss(torch.zeros(1, 3), torch.tensor([0])).item()  # 3 log 2
        2.079441547393799
    """

    def __init__(self, num_classes: int, initial_threshold: float = 0.0) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"BinaryCrossEntropyLoss needs at least 2 classes, got {num_classes}")
        if not math.isfinite(initial_threshold):
            raise ValueError(
                f"initial_threshold must be finite, got {initial_threshold}. Use 0, or log(K - 1) for large K."
            )
        self.initial_threshold = float(initial_threshold)
        self.thresholds = nn.Parameter(torch.full((num_classes,), self.initial_threshold))

    def draw_parameters(self, generator: torch.Generator | None) -> None:  # noqa: ARG002
        """Set all thresholds to the initial one."""
        with torch.no_grad():
            self.thresholds.fill_(self.initial_threshold)

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the binary losses over classes, for each sample (N,)."""
        return _one_against_rest(logits, labels, self.thresholds)

    def per_sample_from_probabilities(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the binary losses (N,) for a probability of each class, which need not sum to one."""
        x = _above(logits, self.thresholds)
        return (nn.functional.softplus(x) - targets * x).sum(1)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"num_classes={len(self.thresholds)}"
