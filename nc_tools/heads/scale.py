"""The scale (inverse temperature) of logits that are products of unit features and unit class vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def default_scale(num_classes: int, confidence: float = 0.999) -> float:
    """Return the scale at which a feature equal to its class vector (ETF) has softmax probability ``confidence``.

    s = ((K - 1) / K) ln((K - 1) p / (1 - p)): the logit of the own class is s, that of every other class -s / (K - 1).
    Without a scale the largest possible probability is .25 at K = 10 and .0027 at K = 1000, so cross-entropy stays
    high and the confidence of such logits is meaningless.

    Args:
        num_classes: K, at least 2.
        confidence: p, strictly between 1 / K and 1.

    Raises:
        ValueError: If K < 2, or the confidence is not between 1 / K and 1.

    Example:
        >>> [round(default_scale(k), 1) for k in (10, 100, 1000)]
        [8.2, 11.4, 13.8]
    """
    if num_classes < 2:
        raise ValueError(f"default_scale needs at least 2 classes, got {num_classes}")
    if not 1 / num_classes < confidence < 1:
        raise ValueError(f"confidence must lie between 1/{num_classes} and 1, got {confidence}")
    odds = (num_classes - 1) * confidence / (1 - confidence)
    return (num_classes - 1) / num_classes * math.log(odds)


@dataclass(frozen=True)
class LearnedScale:
    """Setting for a learned scale of the logits: the softplus of a parameter, by default without weight decay.

    Weight decay on a scale would be an unwanted temperature schedule. Softplus rather than exp, because with exp a step
    is proportional to the scale: with SGD at learning rates that suit the other weights, the scale fell to zero within
    the first epochs, where its gradient vanishes, and accuracy stayed at chance.

    With one scale per class, a rare class has its own temperature. But the scales act like norms of the class vectors,
    so the head can learn the class prior again, and the predicted class is no longer the one with the nearest vector.

    Attributes:
        initial: The initial scale; None takes :func:`default_scale`.
        per_class: Learn one scale per class, a parameter (K,), instead of a single 0-dimensional parameter.
    """

    initial: float | None = None
    per_class: bool = False


LEARNED = LearnedScale()
LEARNED_PER_CLASS = LearnedScale(per_class=True)


class Scale(nn.Module):
    """A positive factor of the logits, fixed or learned.

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
                f"scale must be positive and finite, got {value}: omit it to use the default, "
                f"{default_scale(num_classes):.1f}"
            )
        self.fixed: float | None = None if isinstance(scale, LearnedScale) else value
        if isinstance(scale, LearnedScale):
            raw = value + math.log(-math.expm1(-value))  # the inverse of softplus
            self.raw = nn.Parameter(torch.full((num_classes,) if scale.per_class else (), raw))

    def value(self) -> Tensor | float:
        """Return the scale: a number, a scalar tensor, or a tensor (K,) with one scale per class."""
        return nn.functional.softplus(self.raw) if self.fixed is None else self.fixed

    def extra_repr(self) -> str:
        """Return the scale for ``print(model)``."""
        if self.fixed is not None:
            return f"{self.fixed:.4g}"
        return "learned per class" if self.raw.ndim else "learned"
