"""The scale (inverse temperature) of logits that are products of unit features and unit class vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools._support.initial_tensors import InitialTensors


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

    Weight decay on a scale would be an unwanted temperature schedule. Softplus is used and not exp, with which a step
    of the scale is proportional to the scale: with SGD at learning rates that suit the other weights, the scale fell to
    zero within the first epochs, where its gradient vanishes, and accuracy stayed at chance.

    With one scale per class, a rare class has its own temperature. But the scales act like norms of the class vectors,
    so the head can learn the class prior again, and the predicted class is no longer the one with the nearest vector.

    Attributes:
        initial: The initial scale; None takes :func:`default_scale`.
        per_class: Learn one scale per class, a parameter (K,), instead of one for all, a parameter (1,).
    """

    initial: float | None = None
    per_class: bool = False


LEARNED = LearnedScale()
LEARNED_PER_CLASS = LearnedScale(per_class=True)


class Scale(InitialTensors):
    """A positive factor of the logits: a learned parameter, or a fixed number in a buffer.

    Both are in checkpoints, so that a loaded head has the scale that it was saved with.

    Args:
        scale: A positive number, ``LEARNED``, ``LEARNED_PER_CLASS`` or None for :func:`default_scale`.
        num_classes: K.

    Attributes:
        learned: Whether it is learned.
        per_class: Whether there is one scale per class.
        raw: The parameter, if it is learned: (K,), or (1,); the scale is its softplus.
        fixed: The number, if it is not learned: (1,).

    Raises:
        ValueError: If the number is not positive and finite.

    Example:
        >>> Scale(LEARNED_PER_CLASS, 3)().shape, Scale(8.0, 3)()
        (torch.Size([3]), tensor([8.]))
    """

    raw: nn.Parameter
    fixed: Tensor

    def __init__(self, scale: float | LearnedScale | None, num_classes: int) -> None:
        super().__init__()
        self.learned = isinstance(scale, LearnedScale)
        self.per_class = isinstance(scale, LearnedScale) and scale.per_class
        initial = scale.initial if isinstance(scale, LearnedScale) else scale
        self._initial = default_scale(num_classes) if initial is None else float(initial)
        if not (math.isfinite(self._initial) and self._initial > 0):
            raise ValueError(
                f"scale must be positive and finite, got {self._initial}: omit it to use the default, "
                f"{default_scale(num_classes):.1f}"
            )
        if self.learned:
            self.raw = nn.Parameter(torch.empty(num_classes if self.per_class else 1))
            self.draw_parameters(None)
        else:
            self.register_buffer("fixed", torch.full((1,), self._initial))

    def draw_parameters(self, generator: torch.Generator | None) -> None:  # noqa: ARG002
        """Set a learned scale to its initial value."""
        if self.learned:
            with torch.no_grad():
                self.raw.fill_(self._initial + math.log(-math.expm1(-self._initial)))  # the inverse of softplus

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the fixed scale that the head was built with."""
        return {} if self.learned else {"fixed": torch.full((1,), self._initial, dtype=torch.float64, device="cpu")}

    def forward(self) -> Tensor:
        """Return the scale, (1,), or (K,) with one scale per class, in at least float32."""
        own = self.raw if self.learned else self.fixed
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        return nn.functional.softplus(own) if self.learned else own

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # torch raises for error_msgs with strict=False too, unlike for missing keys.
        own, other = ("raw", "fixed") if self.learned else ("fixed", "raw")
        if prefix + other in state_dict:
            args[-1].append(
                f"{prefix.rstrip('.')} is learned, but the checkpoint has a fixed scale: build the head with a number "
                f"as scale, such as scale=8.0"
                if self.learned
                else f"{prefix.rstrip('.')} is fixed, but the checkpoint has a learned scale: build the head with "
                f"scale=LEARNED"
            )
            return
        value = state_dict.get(prefix + own)
        if value is not None and value.ndim == 0:  # checkpoints of version 0.2
            value = state_dict[prefix + own] = value.reshape(1)
        if value is None and not self.learned:  # checkpoints of version 0.2 had no fixed scale
            state_dict[prefix + own] = self.fixed
        if value is not None and not self.learned and not _is_scale(value):
            args[-1].append(
                f"{prefix}fixed must be positive and finite, got {value.tolist()}: the checkpoint is damaged, load "
                f"another"
            )
            return
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Return the scale for ``print(model)``."""
        if self.learned:
            return "learned per class" if self.per_class else "learned"
        return "on meta" if self.fixed.is_meta else f"{float(self.fixed):.4g}"


def _is_scale(value: Tensor) -> bool:
    return value.is_meta or bool((value.isfinite() & (value > 0)).all())
