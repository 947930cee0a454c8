"""The scale (inverse temperature) of heads with unit features and unit class vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def default_scale(num_classes: int, confidence: float = 0.999) -> float:
    """Return the scale at which a feature on its own ETF vertex gets this softmax probability.

    s = ((K - 1) / K) ln((K - 1) p / (1 - p)): on unit vectors the own class scores s and each other -s / (K - 1).
    Without a scale the largest possible probability is .25 at K = 10 and .0027 at K = 1000, so that cross-entropy
    cannot fall and the calibration of such logits means nothing.

    Args:
        num_classes: K, at least 2.
        confidence: p, between 1 / K and 1, exclusive.

    Raises:
        ValueError: If K < 2 or the confidence cannot be reached with a positive scale.

    Example:
        >>> [round(default_scale(k), 1) for k in (10, 100, 1000)]
        [8.2, 11.4, 13.8]
    """
    if num_classes < 2:
        raise ValueError(f"a scale needs at least 2 classes, got {num_classes}")
    if not 1 / num_classes < confidence < 1:
        raise ValueError(f"confidence must lie between 1/{num_classes} and 1, got {confidence}")
    odds = (num_classes - 1) * confidence / (1 - confidence)
    return (num_classes - 1) / num_classes * math.log(odds)


@dataclass(frozen=True)
class LearnedScale:
    """Ask for a scale that is trained, as softplus of a parameter that no optimizer group here decays by default.

    Weight decay on a scale is a temperature schedule that nobody asked for. Softplus rather than exp, because under
    exp a step is proportional to the scale itself: with SGD at rates that suit the other weights the scale fell to
    zero within the first epochs, from where its gradient vanishes, and the head stayed at chance.

    One scale for each class lets a rare class have a temperature of its own. It also lets the class prior back in,
    through the norms of the class vectors that a fixed frame made equal: the predicted class is then no longer the one
    whose vector is nearest.

    Attributes:
        initial: Where it starts; None takes :func:`default_scale`.
        per_class: Learn K numbers, a parameter (K,), instead of one, a 0-dimensional parameter.
    """

    initial: float | None = None
    per_class: bool = False


LEARNED = LearnedScale()
LEARNED_PER_CLASS = LearnedScale(per_class=True)


class Scale(nn.Module):
    """A positive scale, fixed or learned.

    Args:
        scale: A positive number, ``LEARNED``, ``LEARNED_PER_CLASS`` or None for :func:`default_scale`.
        num_classes: K.

    Raises:
        ValueError: If the number is not positive and finite.

    Example:
        >>> Scale(LEARNED_PER_CLASS, 3).value().shape
        torch.Size([3])
    """

    raw: nn.Parameter

    def __init__(self, scale: float | LearnedScale | None, num_classes: int) -> None:
        super().__init__()
        initial = scale.initial if isinstance(scale, LearnedScale) else scale
        value = default_scale(num_classes) if initial is None else float(initial)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(
                f"scale must be positive and finite, got {value}: leave it out for {default_scale(num_classes):.1f}"
            )
        self.fixed: float | None = None if isinstance(scale, LearnedScale) else value
        if isinstance(scale, LearnedScale):
            raw = value + math.log(-math.expm1(-value))  # softplus of it is the value
            self.raw = nn.Parameter(torch.full((num_classes,) if scale.per_class else (), raw))

    def value(self) -> Tensor | float:
        """Return the scale: a number, or a tensor () or (K,)."""
        return nn.functional.softplus(self.raw) if self.fixed is None else self.fixed

    def extra_repr(self) -> str:
        """Show the value in the model's printout."""
        if self.fixed is not None:
            return f"{self.fixed:.4g}"
        return "learned per class" if self.raw.ndim else "learned"
