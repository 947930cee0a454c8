"""Check a file of test predictions by its header, before a comparison reads it part by part."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.regular_file import check_regular

_LOGITS, _LABELS = ("F16", "F32", "F64"), ("I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64")


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
            if not {"test_logits", "test_labels"} <= names:
                raise DamagedFileError(f"{path.name} must hold test_logits and test_labels, got {sorted(names)}")
            rows, classes = _shape(path, file, "test_logits", _LOGITS, 2)
            (labels,) = _shape(path, file, "test_labels", _LABELS, 1)
            if rows != labels or rows < 1 or classes < 1:
                raise DamagedFileError(
                    f"{path.name} must hold one row of test_logits for each of at least one label, got "
                    f"{rows} x {classes} and {labels} labels"
                )
            if "temperature" in names:
                _shape(path, file, "temperature", _LOGITS, 1)
                values = file.get_tensor("temperature")
                if values.size != 1 or not (math.isfinite(values[0]) and values[0] > 0):
                    raise DamagedFileError(f"the temperature in {path.name} must be one positive number")
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(f"{path.name} cannot be read ({error}). Train that run again") from error


def _shape(path: Path, file: Any, name: str, dtypes: tuple[str, ...], dimensions: int) -> list[int]:
    part = file.get_slice(name)
    shape: list[int] = part.get_shape()
    if part.get_dtype() not in dtypes or len(shape) != dimensions:
        raise DamagedFileError(
            f"{name} in {path.name} must have {dimensions} dimensions and one of the types {', '.join(dtypes)}, got "
            f"{part.get_dtype()} of shape {tuple(shape)}"
        )
    return shape
