"""Read the columns of an embedding file (.npz, .safetensors or .parquet) as NumPy arrays, without running any code."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nc_tools._support.existing_file import check_file

EMBEDDING_COLUMNS = ("features", "labels", "ids", "split", "groups", "classes")
"""The names that an embedding file may hold; ``features`` and ``labels`` are required."""

EmbeddingArrays = dict[str, np.ndarray]


def read_embedding_columns(path: Path) -> EmbeddingArrays:
    """Return the arrays of an embedding file by name.

    - ``.npz``: arrays as ``numpy.savez`` writes them. Object arrays are refused: they hold pickles, which run code.
    - ``.safetensors``: tensors; texts (ids, split, groups, classes) are JSON lists in the file's metadata.
    - ``.parquet``: columns, of which ``features`` holds lists of equal length. Needs pyarrow.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the suffix is another one, the file is damaged, or a required array is missing.
    """
    check_file(path, "embedding file")
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"an embedding file must end in {', '.join(readers)}, got {path.name}: save it in one of these formats, "
            f"such as with numpy.savez({path.stem!r}, features=features, labels=labels)"
        )
    columns = reader(path)
    missing = [name for name in ("features", "labels") if name not in columns]
    if missing:
        listed = ", ".join(sorted(columns)) or "nothing"
        raise ValueError(
            f"{path.name} must hold the arrays features and labels, but has no {' and no '.join(missing)} (it holds "
            f"{listed}): save it again with these names"
        )
    return {name: columns[name] for name in EMBEDDING_COLUMNS if name in columns}


def _read_npz(path: Path) -> EmbeddingArrays:
    try:
        # np.load leaves a file open that it cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: _npz_array(file, name, path) for name in file.files}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


def _npz_array(file: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise _damaged(path, error) from error
        raise ValueError(
            f"the array {name} of {path.name} holds Python objects, which are never loaded because they can run code: "
            f"save it as numbers, or as text with {name}.astype(str)"
        ) from None


def _read_safetensors(path: Path) -> EmbeddingArrays:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            columns: EmbeddingArrays = {name: _tensor(file, name, path) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error
    for name in ("ids", "split", "groups", "classes", "labels"):
        if name in header and name not in columns:
            columns[name] = _text_list(name, header[name], path)
    return columns


def _tensor(file: Any, name: str, path: Path) -> np.ndarray:
    tensor: np.ndarray | None
    try:
        tensor = file.get_tensor(name)
    except (TypeError, AttributeError):
        tensor = None
    if tensor is None or tensor.dtype.isbuiltin != 1:  # ml_dtypes, once imported by some package, adds types to NumPy
        kind = file.get_slice(name).get_dtype()
        raise ValueError(
            f"the tensor {name} of {path.name} has numbers of the type {kind}, which numpy does not have: save it as "
            f"float32"
        )
    return tensor


def _text_list(name: str, text: str, path: Path) -> np.ndarray:
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list):
        raise ValueError(f"the metadata entry {name} of {path.name} must be a JSON list of texts, got {text[:40]!r}")
    return np.asarray([str(value) for value in values])


def _read_parquet(path: Path) -> EmbeddingArrays:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(
            f"reading {path.name} needs pyarrow, which is not installed: pip install pyarrow, or save the embeddings "
            f"as .npz"
        ) from None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    columns: EmbeddingArrays = {}
    for name in (name for name in EMBEDDING_COLUMNS if name in table.column_names):
        column = table.column(name).combine_chunks()
        if column.null_count:
            raise ValueError(
                f"the column {name} of {path.name} is empty in {column.null_count} rows: fill or drop them"
            )
        lists = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        if lists or pa.types.is_fixed_size_list(column.type):
            columns[name] = _matrix(name, column, len(table), path)
        else:
            columns[name] = (
                np.asarray(column.to_pylist()) if pa.types.is_string(column.type) else column.to_numpy(False)
            )
    return columns


def _matrix(name: str, column: Any, rows: int, path: Path) -> np.ndarray:
    import pyarrow.compute as pc

    values, lengths = column.flatten(), pc.list_value_length(column)
    width = len(values) // max(rows, 1)
    if values.null_count or (rows and pc.min_max(lengths).as_py() != {"min": width, "max": width}):
        raise ValueError(
            f"the lists in the column {name} of {path.name} must all have the same length and no empty entry, got "
            f"{values.null_count} empty entries and lengths from {pc.min(lengths)} to {pc.max(lengths)}"
        )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(rows, width)


def _damaged(path: Path, error: BaseException) -> ValueError:
    return ValueError(f"{path.name} cannot be read ({error}): the file is damaged or incomplete, write it again")
