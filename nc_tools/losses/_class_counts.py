"""Checks of class counts and of vectors with one entry for each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def checked_counts(class_counts: Tensor | Sequence[int]) -> Tensor:
    """Check the numbers of training samples of the classes, and return them in float64 (K,).

    Raises:
        TypeError: If they are not numbers.
        ValueError: If they are not a vector of K >= 2 finite numbers, or a class has no sample.

    Example:
        >>> checked_counts([3, 1]).tolist()
        [3.0, 1.0]
        >>> checked_counts([3, 0])
        Traceback (most recent call last):
        ...
        ValueError: every class needs at least one training sample, but classes [1] have none. Remove these \
classes, and number the others from 0.
    """
    try:
        counts = torch.as_tensor(class_counts, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"class_counts must hold one number for each of K >= 2 classes, got {class_counts!r}") from None
    if counts.ndim != 1 or len(counts) < 2:
        raise ValueError(
            f"class_counts must hold one number for each of K >= 2 classes, got the shape {tuple(counts.shape)}"
        )
    if not bool(counts.isfinite().all()):
        raise ValueError(f"class_counts must be finite, got {counts.tolist()}: pass training samples per class")
    empty = (counts <= 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"every class needs at least one training sample, but classes {empty} have none. Remove these classes, and "
            f"number the others from 0."
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
            f"with the class_counts of the data that the head is trained on."
        )
