"""Active-passive losses: a normalized loss that learns, and a passive one that learns more."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

from nc_tools.losses._one_softmax import of_surprise, of_surprise_and_lead
from nc_tools.losses.loss_term import LossTerm
from nc_tools.losses.symmetric_cross_entropy import checked_log_zero, reverse_cross_entropy, reverse_of
from nc_tools.records import Batch, Outputs

PerSample = Callable[[Tensor, Tensor], Tensor]


def normalized_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over its sum for all labels, per sample: log p_y / sum_j log p_j, in [0, 1].

    Robust to symmetric noise below (K - 1)/K, since its sum over labels is a constant. The denominator is at most
    -K log K, so there is nothing to divide by zero. Source: Ma et al. 2020, eq. 3 and 5.

    Args:
        logits: (N, K).
        labels: (N,), int64.

    Returns:
        (N,).

    Example:
        >>> import torch
        >>> normalized_cross_entropy(torch.zeros(1, 4), torch.tensor([0])).tolist()
        [0.25]
    """
    classes = logits.shape[-1]
    return of_surprise_and_lead(logits, labels, lambda s, lead: _normalized(s, lead, classes))


def _normalized(surprise: Tensor, lead: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return s / (K (s + m)) and its slopes: K (s + m) is what cross-entropy makes for all labels together."""
    whole = num_classes * (surprise + lead)
    value = surprise / whole
    by_lead = value * (-num_classes / whole)
    return value, 1 / whole + by_lead, by_lead


def mean_absolute_error(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - p_y per sample (N,), half of the L1 distance between softmax and one-hot label.

    Example:
        >>> import torch
        >>> mean_absolute_error(torch.zeros(1, 4), torch.tensor([0])).tolist()
        [0.75]
    """
    return of_surprise(logits, labels, lambda s: reverse_of(s, -1.0))


class ActivePassiveLoss(LossTerm):
    """A robust loss that raises p_y plus one that lowers the others: alpha active + beta passive.

    Normalized losses are robust but underfit; a passive loss, which acts on the probabilities of the other classes too,
    makes up for it. Source: Ma et al. 2020, eq. 11. :class:`NCEAndRCELoss` and :class:`NCEAndMAELoss` are the pairs
    that they recommend; other functions of (logits, labels) to (N,) can be given here. A recipe is written down as
    JSON, so there make a named subclass instead.

    Args:
        alpha: Weight of the active loss.
        beta: Weight of the passive one. (1, 1) on CIFAR-10 and (10, .1) on CIFAR-100 in the paper.
        active: Per-sample loss.
        passive: Per-sample loss.

    Raises:
        ValueError: If a weight is negative.

    Example:
        >>> import torch
        >>> from nc_tools.heads import LinearHead
        >>> batch = Batch(torch.zeros(2, 4), torch.tensor([0, 2]), torch.arange(2))
        >>> ActivePassiveLoss(10.0, 0.1)(LinearHead(4, 3).outputs(batch.inputs), batch).shape
        torch.Size([])
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        active: PerSample = normalized_cross_entropy,
        passive: PerSample = reverse_cross_entropy,
    ) -> None:
        super().__init__()
        if not (0 <= alpha < math.inf and 0 <= beta < math.inf):
            raise ValueError(f"the weights of a loss must be finite and not negative, got alpha={alpha}, beta={beta}")
        self.alpha, self.beta = alpha, beta
        self.active, self.passive = active, passive

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        logits, labels = outputs.logits, batch.labels
        return (self.alpha * self.active(logits, labels) + self.beta * self.passive(logits, labels)).mean()

    def extra_repr(self) -> str:
        """Show the weights in the loss's printout."""
        return f"alpha={self.alpha}, beta={self.beta}"


class NCEAndRCELoss(ActivePassiveLoss):
    """Normalized plus reverse cross-entropy: alpha log p_y / sum_j log p_j - beta A (1 - p_y).

    Source: Ma et al. 2020, table 2. A = -4 as in Wang et al. 2019; the released code has log 1e-4 = -9.21.

    Args:
        alpha: Weight of the normalized cross-entropy.
        beta: Weight of the reverse one.
        log_zero: A, what stands for log 0.

    Raises:
        ValueError: If a weight is negative or ``log_zero`` is not negative.

    Example:
        >>> NCEAndRCELoss()
        NCEAndRCELoss(alpha=1.0, beta=1.0, log_zero=-4.0)
    """

    def __init__(self, alpha: float = 1.0, beta: float = 1.0, log_zero: float = -4.0) -> None:
        self.log_zero = checked_log_zero(log_zero)
        super().__init__(alpha, beta, passive=partial(reverse_cross_entropy, log_zero=log_zero))

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch, both losses from one softmax."""
        return _normalized_and_reverse(self, outputs, batch, self.log_zero)

    def extra_repr(self) -> str:
        """Show weights and A in the loss's printout."""
        return f"{super().extra_repr()}, log_zero={self.log_zero}"


class NCEAndMAELoss(ActivePassiveLoss):
    """Normalized cross-entropy plus mean absolute error: alpha log p_y / sum_j log p_j + beta (1 - p_y).

    Source: Ma et al. 2020, table 2. Their text has 2 (1 - p_y), the whole L1 distance; their released code 1 - p_y, to
    which their weights belong, and so do we.

    Args:
        alpha: Weight of the normalized cross-entropy.
        beta: Weight of the mean absolute error.

    Raises:
        ValueError: If a weight is negative.

    Example:
        >>> NCEAndMAELoss()
        NCEAndMAELoss(alpha=1.0, beta=1.0)
    """

    def __init__(self, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__(alpha, beta, passive=mean_absolute_error)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch, both losses from one softmax."""
        return _normalized_and_reverse(self, outputs, batch, -1.0)


def _normalized_and_reverse(loss: ActivePassiveLoss, outputs: Outputs, batch: Batch, log_zero: float) -> Tensor:
    classes = outputs.logits.shape[-1]

    def formula(s: Tensor, lead: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        active, by_surprise, by_lead = _normalized(s, lead, classes)
        passive, slope = reverse_of(s, log_zero)
        value = loss.alpha * active + loss.beta * passive
        return value, loss.alpha * by_surprise + loss.beta * slope, loss.alpha * by_lead

    return of_surprise_and_lead(outputs.logits, batch.labels, formula, "mean")
