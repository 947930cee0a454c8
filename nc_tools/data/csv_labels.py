"""Training labels from a CSV, matched to images by path: human relabeling, noisy labels, corrections."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.data.csv_text import open_csv


def read_labels(
    file: Path, column: str, paths: Sequence[str], classes: Sequence[str], others: Collection[str] = ()
) -> Tensor:
    """Read one label per training image from a CSV with a ``path`` column.

    A label is a class name or, where no class has that name, a class index.

    Args:
        file: CSV file in UTF-8 with a header row.
        column: The column that holds the labels.
        paths: The training images, relative to the data root, with forward slashes.
        classes: K class names.
        others: Further paths that rows may name and that are passed over, such as test images.

    Returns:
        (N,) int64, in the order of ``paths``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a row names no image or no class, or an image has no row.
    """
    if not file.is_file():
        raise FileNotFoundError(f"the CSV with labels must exist, and {file} does not: check the path")
    position = {path: i for i, path in enumerate(paths)}
    indices = {str(k): k for k in range(len(classes))} | {name: k for k, name in enumerate(classes)}
    found = [-1] * len(paths)
    for line, path, text in _rows(file, column):
        if path not in position:
            if path in others:
                continue
            raise ValueError(_unknown_path(file, line, path, paths))
        label = indices.get(text)
        if label is None:
            near = difflib.get_close_matches(text, classes, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f": the classes are {_some(classes)}"
            raise ValueError(
                f"a label must be a class name or an index in 0..{len(classes) - 1}, and {file}, line {line} "
                f"({path}), has {text!r} in column {column!r}{hint}"
            )
        i = position[path]
        if found[i] not in (-1, label):
            raise ValueError(f"each image must have one label, and {file}, line {line}, gives {path} a second one")
        found[i] = label
    missing = [path for path, label in zip(paths, found, strict=True) if label < 0]
    if missing:
        raise ValueError(
            f"every training image needs a row in {file}, and {len(missing)} of {len(paths)} have none, such "
            f"as {missing[0]}: add rows or remove the images"
        )
    return torch.tensor(found, dtype=torch.int64)


def _rows(file: Path, column: str) -> Iterator[tuple[int, str, str]]:
    with open_csv(file) as handle:
        reader = csv.DictReader(handle)
        columns = list(reader.fieldnames or [])
        if twice := [name for name in ("path", column) if columns.count(name) > 1]:
            raise ValueError(f"{file} must have one column {twice[0]!r}, and it has several: rename the others")
        for name in ("path", column):
            if name not in columns:
                near = difflib.get_close_matches(name, columns, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(columns) or 'no header'}"
                raise ValueError(f"{file} must have a column {name!r}, and it has none: {hint}")
        for row in reader:
            path = (row["path"] or "").replace("\\", "/").removeprefix("./")
            yield reader.line_num, path, (row[column] or "").strip()


def _unknown_path(file: Path, line: int, path: str, paths: Sequence[str]) -> str:
    same_name = [known for known in paths if known.endswith("/" + path)]
    hint = f"did you mean {same_name[0]}?" if same_name else f"paths look like {paths[0]}"
    return (
        f"every row must name an image of the data folder, and {file}, line {line}, names {path!r}, which is "
        f"not there: {hint}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
