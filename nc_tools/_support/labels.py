"""The checks of labels and features that losses and metrics share.

They look at types, dtypes and shapes. They read no value, so nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def check_tensors(values: Mapping[str, object]) -> None:
    """Check that all values are tensors.

    Args:
        values: What to check, by the name to use in the message.

    Raises:
        TypeError: If a value is not a tensor.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise _not_a_tensor(name, value)


def _not_a_tensor(name: str, value: object) -> TypeError:
    return TypeError(f"{name} must be a tensor, got {type(value).__name__}. Convert it with torch.as_tensor().")


def check_labels(labels: object, count: int) -> None:
    """Check that the labels are one integer class index for each of ``count`` samples.

    Args:
        labels: (N,).
        count: N.

    Raises:
        TypeError: If the labels are not a tensor of integers.
        ValueError: If their shape is not (N,).

    Example:
        >>> check_labels(torch.full((2, 3), 1 / 3), 2)
        Traceback (most recent call last):
        ...
        TypeError: labels must be integer class indices (N,), got torch.float32 of shape (2, 3). For one-hot or soft \
labels pass labels.argmax(1).
    """
    if not isinstance(labels, Tensor):
        raise _not_a_tensor("labels", labels)
    if labels.dtype != torch.int64:
        _check_dtype(labels)
    if labels.ndim != 1 or labels.shape[0] != count:
        raise ValueError(f"labels must have the shape ({count},), one for each sample, got {tuple(labels.shape)}")


def _check_dtype(labels: Tensor) -> None:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(
            f"labels must be integer class indices (N,), got {labels.dtype} of shape {tuple(labels.shape)}. "
            f"For one-hot or soft labels pass labels.argmax(1)."
        )


def check_features_and_labels(features: Tensor, labels: Tensor) -> None:
    """Check that features (N, D) and labels (N,) are of the same samples.

    Raises:
        TypeError: If one is not a tensor, or the labels are not integers.
        ValueError: If the shapes do not fit.
    """
    check_tensors({"features": features})
    if features.ndim != 2:
        raise ValueError(f"features must have the shape (N, D), got {tuple(features.shape)}. Flatten them first.")
    check_labels(labels, features.shape[0])
