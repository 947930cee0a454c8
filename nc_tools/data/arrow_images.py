"""Images inside Parquet files or Hugging Face datasets on disk: unpacked into files with a table beside them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nc_tools.data.short_list import short_list
from nc_tools.data.split_words import split_role_and_rest
from nc_tools.data.unpack_once import TABLE, unpack_once

_IMAGE, _PART = "image_file", "split"


@dataclass(frozen=True)
class _Part:
    """The files of one part of a data set, and the class names by column, for columns that hold class numbers."""

    name: str
    files: tuple[Path, ...]
    class_names: Mapping[str, Sequence[str]]


def unpack_parquet(path: Path) -> Path:
    """Unpack the images of a Parquet file, or of a folder of them, and return the folder of images and table.

    If there are several files, the name of a file up to the first hyphen says which part of the data it belongs to, as
    in ``train-00000-of-00002.parquet``; or else the name of its folder says it.

    Args:
        path: A Parquet file or a folder.

    Raises:
        FileNotFoundError: If there is no such file, or no Parquet file in the folder.
        ValueError: If pyarrow is missing, a file is damaged, or there is not exactly one column with the bytes of
            images.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"there is no Parquet file at {path}: check the path")
    by_part: dict[str, list[Path]] = {}
    for file in files:
        role = split_role_and_rest(file.name.partition("-")[0]) or split_role_and_rest(file.parent.name)
        by_part.setdefault(role[0] if role and len(files) > 1 else "", []).append(file)
    parts = [_Part(name, tuple(of), _names_in_parquet(of[0])) for name, of in by_part.items()]
    return _unpacked(path, parts)


def unpack_hf_dataset(path: Path) -> Path:
    """Unpack the images of a Hugging Face dataset on disk (``save_to_disk``); return the folder of images and table.

    Args:
        path: The folder of a Dataset or a DatasetDict.

    Raises:
        FileNotFoundError: If there is no such dataset.
        ValueError: If pyarrow is missing, a file is damaged, or there is not exactly one column with the bytes of
            images.
    """
    names = [""]
    if (path / "dataset_dict.json").is_file():
        names = [str(name) for name in _json(path / "dataset_dict.json").get("splits") or ()]
    parts = []
    for name in names:
        folder = path / name
        files = tuple(sorted(folder.glob("*.arrow")))
        if not files or not (folder / "dataset_info.json").is_file():
            raise FileNotFoundError(
                f"{folder} holds no dataset that save_to_disk wrote (dataset_info.json and *.arrow): check the path"
            )
        parts.append(_Part(name, files, _class_names(_json(folder / "dataset_info.json").get("features") or {})))
    return _unpacked(path, parts)


def _unpacked(path: Path, parts: Sequence[_Part]) -> Path:
    _pyarrow()
    return unpack_once(path, [file for part in parts for file in part.files], lambda folder: _write(folder, parts))


def _write(folder: Path, parts: Sequence[_Part]) -> None:
    rows: list[dict[str, str]] = []
    for part in parts:
        for record in _records(part):
            image, cells = _split_record(record, part)
            suffix = ".jpg" if image.startswith(b"\xff\xd8") else ".png"
            name = f"{len(rows):07d}{suffix}"
            (folder / name).write_bytes(image)
            rows.append({_IMAGE: name, **({_PART: part.name} if part.name else {}), **cells})
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _records(part: _Part) -> Iterator[dict[str, Any]]:
    """Yield the records of a part, a batch of rows in memory at a time."""
    arrow = _pyarrow()
    for file in part.files:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=256):
                yield from batch.to_pylist()
        else:
            with arrow.memory_map(os.fspath(file)) as source:
                for batch in arrow.ipc.open_stream(source):
                    for start in range(0, batch.num_rows, 256):
                        yield from batch.slice(start, 256).to_pylist()


def _split_record(record: Mapping[str, Any], part: _Part) -> tuple[bytes, dict[str, str]]:
    """Return the bytes of the image of a record, and its other values as text."""
    images = {name: value for name, value in record.items() if isinstance(value, bytes) or _is_image(value)}
    if len(images) != 1:
        kinds = short_list([f"{name} ({type(value).__name__})" for name, value in record.items()], 12)
        raise ValueError(
            f"{part.files[0]} must have one column with the bytes of images, but has {len(images)}: its columns are "
            f"{kinds}; embeddings are read with embeddings:FILE"
        )
    (image,) = images.values()
    cells = {}
    for name, value in record.items():
        if name in images or isinstance(value, dict | list | bytes) or name in (_IMAGE, _PART):
            continue
        names = part.class_names.get(name)
        named = names is not None and isinstance(value, int) and 0 <= value < len(names)
        cells[name] = names[value] if names is not None and named else "" if value is None else str(value)
    return image if isinstance(image, bytes) else image["bytes"], cells


def _is_image(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("bytes"), bytes)


def _names_in_parquet(file: Path) -> dict[str, Sequence[str]]:
    """Return the class names by column that the Hugging Face Hub stores in a Parquet file."""
    _pyarrow()
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(file).metadata or {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as Parquet ({error}): check the file") from None
    if b"huggingface" not in metadata:
        return {}
    try:
        info = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return _class_names(info) if isinstance(info, dict) else {}


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{file} is damaged: it is not a JSON object; save the dataset again")
    return value


def _class_names(features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    return {
        name: [str(class_name) for class_name in feature["names"]]
        for name, feature in features.items()
        if isinstance(feature, Mapping) and isinstance(feature.get("names"), list)
    }


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise ValueError("reading Parquet files and Hugging Face datasets needs pyarrow: pip install pyarrow") from None
    return pyarrow
