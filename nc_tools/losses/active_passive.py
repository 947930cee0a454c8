"""Active-passive losses: a normalized loss, robust to label noise, plus a passive loss, with which it learns faster."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from nc_tools.losses._arguments import check_log_zero, check_weights
from nc_tools.losses._one_softmax import of_nll
from nc_tools.losses._rows import RowReduction, rows_of
from nc_tools.losses.logit_loss import LogitLoss
from nc_tools.losses.symmetric_cross_entropy import reverse_cross_entropy, reverse_of

PerSample = Callable[[Tensor, Tensor], Tensor]


def normalized_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy divided by its sum over all labels: log p_y / sum_j log p_j, in [0, 1].

    It is robust to symmetric label noise below (K - 1) / K, because its sum over all labels is a constant. The
    denominator is at most -K log K, so there is no division by zero. Source: Ma et al. 2020, eq. 3 and 5.

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
    rows = rows_of(logits, labels)
    formula = partial(_normalized, num_classes=rows.logits.shape[1])
    return rows.apply(lambda z, y, r: of_nll(z, y, formula, r, arity=2), "none")


def _normalized(nll: Tensor, margin: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return nll / (K (nll + m)) and its slopes. The denominator is the sum of cross-entropy over all labels."""
    total = num_classes * (nll + margin)
    value = nll / total
    by_margin = value * (-num_classes / total)
    return value, 1 / total + by_margin, by_margin


def mean_absolute_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - p_y for each sample (N,), half of the L1 distance between softmax and one-hot label.

    Example:
        >>> import torch
        >>> mean_absolute_error(torch.zeros(1, 4), torch.tensor([0])).tolist()
        [0.75]
    """
    return rows_of(logits, labels).apply(lambda z, y, r: of_nll(z, y, lambda nll: reverse_of(nll, -1.0), r), "none")


class ActivePassiveLoss(LogitLoss):
    """An active loss (raises p_y) plus a passive one (lowers other probabilities), for label noise.

    Normalized losses are robust but underfit. A passive loss, which also acts on the probabilities of the other
    classes, corrects that. Source: Ma et al. 2020, eq. 11. :class:`NCEAndRCELoss` and :class:`NCEAndMAELoss` are the
    pairs that they recommend. In your own loop, ``active`` and ``passive`` may be any functions. In a recipe, whose
    arguments are stored as JSON, use a subclass instead.

    Args:
        alpha: Weight of the active loss.
        beta: Weight of the passive loss. The paper uses (alpha, beta) = (1, 1) on CIFAR-10 and (10, .1) on CIFAR-100.
        active: Function from logits (N, K) and labels (N,) to losses (N,).
        passive: Function from logits (N, K) and labels (N,) to losses (N,).

    Raises:
        ValueError: If a weight is negative or not finite.

    Example:
        >>> import torch
        >>> ActivePassiveLoss(10.0, 0.1)(torch.zeros(2, 4), torch.tensor([0, 2]))
        tensor(2.8000)
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        active: PerSample = normalized_cross_entropy,
        passive: PerSample = reverse_cross_entropy,
    ) -> None:
        super().__init__()
        check_weights(alpha, beta)
        self.alpha, self.beta = alpha, beta
        self.active, self.passive = active, passive

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of both losses for each sample (N,)."""
        return self.alpha * self.active(logits, labels) + self.beta * self.passive(logits, labels)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"alpha={self.alpha}, beta={self.beta}"


class _NormalizedAndReverse(ActivePassiveLoss):
    """Normalized plus reverse cross-entropy, both from one softmax."""

    log_zero: float

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of both losses for each sample (N,)."""
        return self._from_one_softmax(logits, labels, "none")

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the batch."""
        return self._from_one_softmax(logits, labels, "mean")

    def _from_one_softmax(self, logits: Tensor, labels: Tensor, reduction: RowReduction) -> Tensor:
        return of_nll(logits, labels, partial(self._formula, logits.shape[1]), reduction, arity=2)

    def _formula(self, num_classes: int, nll: Tensor, margin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        active, by_nll, by_margin = _normalized(nll, margin, num_classes)
        passive, slope = reverse_of(nll, self.log_zero)
        value = self.alpha * active + self.beta * passive
        return value, self.alpha * by_nll + self.beta * slope, self.alpha * by_margin


class NCEAndRCELoss(_NormalizedAndReverse):
    """Normalized plus reverse cross-entropy: alpha * log p_y / sum_j log p_j - beta * A * (1 - p_y).

    Source: Ma et al. 2020, table 2. A = -4 as in Wang et al. 2019; the released code has log 1e-4 = -9.21.

    Args:
        alpha: Weight of the normalized cross-entropy.
        beta: Weight of the reverse cross-entropy.
        log_zero: A, the value that stands for log 0.

    Raises:
        ValueError: If a weight is negative or not finite, or ``log_zero`` is not negative and finite.

    Example:
        >>> NCEAndRCELoss()
        NCEAndRCELoss(alpha=1.0, beta=1.0, log_zero=-4.0)
    """

    def __init__(self, alpha: float = 1.0, beta: float = 1.0, log_zero: float = -4.0) -> None:
        check_log_zero(log_zero)
        super().__init__(alpha, beta, passive=partial(reverse_cross_entropy, log_zero=log_zero))
        self.log_zero = log_zero

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"{super().extra_repr()}, log_zero={self.log_zero}"


class NCEAndMAELoss(_NormalizedAndReverse):
    """Normalized cross-entropy plus mean absolute error: alpha * log p_y / sum_j log p_j + beta * (1 - p_y).

    Source: Ma et al. 2020, table 2. Their text has 2 (1 - p_y), the full L1 distance. Their released code has 1 - p_y,
    to which their weights belong, and so has this class.

    Args:
        alpha: Weight of the normalized cross-entropy.
        beta: Weight of the mean absolute error.

    Raises:
        ValueError: If a weight is negative or not finite.

    Example:
        >>> NCEAndMAELoss()
        NCEAndMAELoss(alpha=1.0, beta=1.0)
    """

    log_zero = -1.0  # with which reverse cross-entropy is 1 - p_y

    def __init__(self, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__(alpha, beta, passive=mean_absolute_error)
