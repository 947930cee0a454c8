"""The labels of an embedding file: whole numbers or texts, converted to class indices and class names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nc_tools.data.short_list import short_list
from nc_tools.features.embedding_columns import EmbeddingArrays


def indices_and_classes(columns: EmbeddingArrays, scored: np.ndarray, path: Path) -> tuple[Tensor, tuple[str, ...]]:
    """Return class indices (N,), int64, and the class names.

    If the file has ``classes``, all labels are names in it or all are positions in it. Otherwise the classes are the
    labels that occur, sorted: as numbers if all of them are whole numbers (also when written as text), else as text.

    Args:
        columns: The arrays of the file.
        scored: Which rows need a label (N,), bool; the other rows get the index 0.
        path: The file, for messages.

    Raises:
        ValueError: If a label is missing, not a whole number or text, or not one of ``classes``.
    """
    values = columns["labels"]
    texts = _as_texts(values, scored, path)
    if "classes" in columns:
        return _positions(texts, [str(name) for name in columns["classes"].tolist()], scored, path)
    present = sorted({text for text, used in zip(texts, scored.tolist(), strict=True) if used})
    if all(_is_whole(text) for text in present):
        present = sorted({str(int(text)) for text in present}, key=int)
        texts = [str(int(text)) if used else text for text, used in zip(texts, scored.tolist(), strict=True)]
    return _indices(texts, present, scored), tuple(present)


def _as_texts(values: np.ndarray, scored: np.ndarray, path: Path) -> list[str]:
    if values.dtype.kind == "f":
        fractional = ~np.isfinite(values[scored]) | (values[scored] != np.floor(values[scored]))
        if fractional.any():
            raise ValueError(
                f"labels of {path.name} must be whole numbers or texts, got {values[scored][fractional][0]:g} and "
                f"{int(fractional.sum()) - 1} more that are not: give each sample the number or name of its class"
            )
        values = np.where(scored, values, 0).astype(np.int64)
    elif values.dtype.kind not in "iuUSb":
        raise ValueError(f"labels of {path.name} must be whole numbers or texts, got {values.dtype}")
    texts = [value.decode() if isinstance(value, bytes) else str(value).strip() for value in values.tolist()]
    empty = [row for row, (text, used) in enumerate(zip(texts, scored.tolist(), strict=True)) if used and not text]
    if empty:
        raise ValueError(
            f"{len(empty)} rows of {path.name} have no label, first row {empty[0]}: label them or remove them"
        )
    return texts


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _positions(texts: list[str], names: list[str], scored: np.ndarray, path: Path) -> tuple[Tensor, tuple[str, ...]]:
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"classes of {path.name} must be different names, got {short_list(twice)} more than once")
    used = [text for text, is_used in zip(texts, scored.tolist(), strict=True) if is_used]
    if set(used) <= set(names):
        return _indices(texts, names, scored), tuple(names)
    outside = sorted({text for text in used if not (_is_whole(text) and 0 <= int(text) < len(names))})
    if outside:
        raise ValueError(
            f"labels of {path.name} must be one of its {len(names)} classes or their numbers 0 to {len(names) - 1}, "
            f"got {short_list(outside)}: correct these labels, or add the missing names to classes"
        )
    numbers = [int(text) if is_used else 0 for text, is_used in zip(texts, scored.tolist(), strict=True)]
    return torch.tensor(numbers), tuple(names)


def _indices(texts: list[str], names: list[str], scored: np.ndarray) -> Tensor:
    index = {name: i for i, name in enumerate(names)}
    return torch.tensor([index[t] if used else 0 for t, used in zip(texts, scored.tolist(), strict=True)])
