"""The check of logits and labels that losses and their free functions share."""

from __future__ import annotations

from torch import Tensor

from nc_tools._support.labels import check_labels
from nc_tools._support.precision import at_least_float32


def checked_logits(logits: Tensor, labels: Tensor, *, int64: bool = False) -> Tensor:
    """Check the shapes and types of logits and labels, and return the logits in float32 or float64.

    Args:
        logits: (N, K).
        labels: (N,).
        int64: Whether the labels must be int64. Otherwise any integer type is accepted.

    Raises:
        TypeError: If the logits are not floating-point, or the labels are not class indices of an accepted type.
        ValueError: If the shapes do not fit.
    """
    if logits.ndim != 2:
        raise ValueError(f"logits must have the shape (N, K), got {tuple(logits.shape)}")
    check_labels(labels, logits.shape[0], int64=int64)
    return at_least_float32(logits, "logits")
