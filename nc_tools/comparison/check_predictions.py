"""Check a file of test predictions by its header, before a comparison reads it in parts."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.regular_file import check_regular

_LOGITS, _LABELS = ("F16", "F32", "F64"), ("I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64")

SHORT = {"test_guesses", "test_confidences", "test_labels", "num_classes"}
"""Tensors of a file without logits: predicted classes (N,), their probabilities (N,), labels (N,), and K (1,)."""
SCALED_CONFIDENCES = "test_scaled_confidences"
"""In such a file, the probabilities of the predicted classes after temperature scaling (N,)."""
_SHORT_TYPES = {"test_guesses": _LABELS, "test_confidences": _LOGITS, SCALED_CONFIDENCES: _LOGITS}
# Larger than any test set. Without these limits a damaged header could make the reader allocate all memory.
_MOST_SAMPLES, _MOST_CLASSES = 50_000_000, 2**24


def check_predictions(path: Path) -> None:
    """Check names, types and shapes of the tensors in a run's predictions.safetensors.

    Raises:
        DamagedFileError: If the file is damaged or no regular file, lacks a tensor, or one has another type or shape.
    """
    # Imported here: most of a comparison needs no safetensors.
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path)
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            if not ({"test_logits", "test_labels"} <= names or names >= SHORT):
                raise DamagedFileError(f"{path.name} must hold test_logits and test_labels, got {sorted(names)}")
            (labels,) = _shape(path, file, "test_labels", _LABELS, 1)
            if "test_logits" in names:
                rows, classes = _shape(path, file, "test_logits", _LOGITS, 2)
            else:
                rows, classes = _short(path, file, names, labels)
            if rows != labels or rows < 1 or classes < 1:
                raise DamagedFileError(
                    f"{path.name} must hold one row of test_logits for each of at least one label, got "
                    f"{rows} x {classes} and {labels} labels"
                )
            if labels > _MOST_SAMPLES or classes > _MOST_CLASSES:
                raise DamagedFileError(
                    f"{path.name} must hold at most {_MOST_SAMPLES:,} labels of at most {_MOST_CLASSES:,} classes, got "
                    f"{labels:,} labels of {classes:,}"
                )
            if "temperature" in names:
                _shape(path, file, "temperature", _LOGITS, 1)
                values = file.get_tensor("temperature")
                if values.size != 1 or not (math.isfinite(values[0]) and values[0] > 0):
                    raise DamagedFileError(f"the temperature in {path.name} must be one positive number")
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(f"{path.name} cannot be read ({error}). Train that run again") from error


def _short(path: Path, file: Any, names: Collection[str], labels: int) -> tuple[int, int]:
    """Check the tensors that a file without logits has instead; return N and K."""
    for name, dtypes in _SHORT_TYPES.items():
        if name in names and _shape(path, file, name, dtypes, 1) != [labels]:
            raise DamagedFileError(f"{path.name} must hold one of {name} for each of its {labels} labels")
    if _shape(path, file, "num_classes", _LABELS, 1) != [1]:
        raise DamagedFileError(f"num_classes in {path.name} must be one number")
    return labels, int(file.get_tensor("num_classes")[0])


def check_class_numbers(name: str, values: NDArray[np.integer], num_classes: int) -> None:
    """Check that the class labels in a file of predictions lie in 0..K-1.

    Raises:
        DamagedFileError: If one does not.
    """
    if values.min() < 0 or values.max() >= num_classes:
        raise DamagedFileError(
            f"{name} must lie in 0..{num_classes - 1}, got {values.min()}..{values.max()}. Make that run again"
        )


def check_confidences(name: str, values: NDArray[np.floating]) -> None:
    """Check that confidences in a file of predictions are probabilities.

    Raises:
        DamagedFileError: If one is not.
    """
    outside = values[~((values >= 0) & (values <= 1))]
    if len(outside):
        raise DamagedFileError(f"{name} must be probabilities, got {outside[0]}. Make that run again")


def _shape(path: Path, file: Any, name: str, dtypes: tuple[str, ...], dimensions: int) -> list[int]:
    part = file.get_slice(name)
    shape: list[int] = part.get_shape()
    if part.get_dtype() not in dtypes or len(shape) != dimensions:
        raise DamagedFileError(
            f"{name} in {path.name} must have {dimensions} dimensions and one of the types {', '.join(dtypes)}, got "
            f"{part.get_dtype()} of shape {tuple(shape)}"
        )
    return shape
