"""Checks of class counts and of vectors with one entry for each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def checked_counts(class_counts: Tensor | Sequence[int]) -> Tensor:
    """Check the numbers of training samples of the classes, and return them in float64 (K,). A class may have none.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If they are not a vector of K >= 2 finite numbers that are not negative, or all are 0.

    Example:
        >>> checked_counts([3, 0]).tolist()
        [3.0, 0.0]
        >>> checked_counts([3, -1])
        Traceback (most recent call last):
        ...
        ValueError: class_counts must be finite and not negative, got [3.0, -1.0]: pass training samples per class
    """
    try:
        # Not on the default device: it may be meta, whose tensors hold no numbers.
        device = class_counts.device if isinstance(class_counts, Tensor) else "cpu"
        counts = torch.as_tensor(class_counts, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"class_counts must hold one number for each of K >= 2 classes, got {class_counts!r}") from None
    if counts.ndim != 1 or len(counts) < 2:
        raise ValueError(
            f"class_counts must hold one number for each of K >= 2 classes, got the shape {tuple(counts.shape)}"
        )
    if not bool((counts.isfinite() & (counts >= 0)).all()):
        raise ValueError(
            f"class_counts must be finite and not negative, got {counts.tolist()}: pass training samples per class"
        )
    if not bool(counts.any()):
        raise ValueError("class_counts are all 0, but a class needs training samples: pass training samples per class")
    return counts


def without_empty(class_counts: Tensor | Sequence[int], what: str) -> Tensor:
    """Check class counts like :func:`checked_counts`, and that every class has a sample.

    Args:
        class_counts: (K,).
        what: What is not defined for a class without samples, for the message.

    Returns:
        The counts (K,), float64.

    Raises:
        TypeError: As :func:`checked_counts`.
        ValueError: As :func:`checked_counts`, or if a class has no sample.

    Example:
        >>> without_empty([3, 0], "this")
        Traceback (most recent call last):
        ...
        ValueError: this is not defined for classes without a training sample, but classes [1] have none. Pass \
torch.as_tensor(class_counts).clamp(min=1), which counts them as if they had one.
    """
    counts = checked_counts(class_counts)
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"{what} is not defined for classes without a training sample, but classes {empty} have none. Pass "
            f"torch.as_tensor(class_counts).clamp(min=1), which counts them as if they had one."
        )
    return counts


def check_width(per_class: Tensor, logits: Tensor) -> None:
    """Check that a vector computed from class counts has one entry for each of the logits' classes.

    Raises:
        ValueError: If it has not.
    """
    if per_class.shape[-1] != logits.shape[-1]:
        raise ValueError(
            f"the loss was built for {per_class.shape[-1]} classes, but the logits have {logits.shape[-1]}. Build it "
            f"with class_counts of all {logits.shape[-1]} classes, 0 for a class without training samples."
        )
