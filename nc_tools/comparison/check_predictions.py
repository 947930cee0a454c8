"""Check a file of test predictions by its header, before a comparison reads it part by part."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.regular_file import check_regular

_LOGITS, _LABELS = ("F16", "F32", "F64"), ("I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64")

SHORT = {"test_guesses", "test_confidences", "test_labels", "num_classes"}
"""Tensors of a file without logits: predicted classes (N,), their probabilities (N,), labels (N,), and K (1,)."""
SCALED_CONFIDENCES = "test_scaled_confidences"
"""In such a file, the probabilities of the predicted classes with the temperature (N,)."""
_SHORT_TYPES = {"test_guesses": _LABELS, "test_confidences": _LOGITS, SCALED_CONFIDENCES: _LOGITS}


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
            if {"test_logits", "test_labels"} <= names:
                _check_logits(path, file)
            elif names >= SHORT:
                _check_short(path, file, names)
            else:
                raise DamagedFileError(f"{path.name} must hold test_logits and test_labels, got {sorted(names)}")
            if "temperature" in names:
                _shape(path, file, "temperature", _LOGITS, 1)
                values = file.get_tensor("temperature")
                if values.size != 1 or not (math.isfinite(values[0]) and values[0] > 0):
                    raise DamagedFileError(f"the temperature in {path.name} must be one positive number")
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(f"{path.name} cannot be read ({error}). Train that run again") from error


def _check_logits(path: Path, file: Any) -> None:
    (labels,) = _shape(path, file, "test_labels", _LABELS, 1)
    rows, classes = _shape(path, file, "test_logits", _LOGITS, 2)
    if rows != labels or rows < 1 or classes < 1:
        raise DamagedFileError(
            f"{path.name} must hold one row of test_logits for each of at least one label, got "
            f"{rows} x {classes} and {labels} labels"
        )


def _check_short(path: Path, file: Any, names: set[str]) -> None:
    (labels,) = _shape(path, file, "test_labels", _LABELS, 1)
    if labels < 1 or _shape(path, file, "num_classes", _LABELS, 1) != [1]:
        raise DamagedFileError(f"{path.name} must hold at least one label, and one number in num_classes")
    classes = int(file.get_tensor("num_classes")[0])
    for name, dtypes in _SHORT_TYPES.items():
        if name not in names:
            continue
        if _shape(path, file, name, dtypes, 1) != [labels]:
            raise DamagedFileError(f"{path.name} must hold one of {name} for each of its {labels} labels")
        largest = classes - 1 if dtypes is _LABELS else 1
        values = file.get_tensor(name)
        if not ((values >= 0) & (values <= largest)).all():
            raise DamagedFileError(f"{name} in {path.name} must be from 0 to {largest}")


def _shape(path: Path, file: Any, name: str, dtypes: tuple[str, ...], dimensions: int) -> list[int]:
    part = file.get_slice(name)
    shape: list[int] = part.get_shape()
    if part.get_dtype() not in dtypes or len(shape) != dimensions:
        raise DamagedFileError(
            f"{name} in {path.name} must have {dimensions} dimensions and one of the types {', '.join(dtypes)}, got "
            f"{part.get_dtype()} of shape {tuple(shape)}"
        )
    return shape
