"""Training labels from a CSV file, matched to images by path: human annotations, noisy labels, corrections."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data.csv_files import read_columns


def read_labels(
    file: Path, column: str, paths: Sequence[str], classes: Sequence[str], ignored_paths: Collection[str] = ()
) -> Tensor:
    """Read one label for each training image from a CSV file with a ``path`` column.

    A label is a class name or, if no class has that name, a class index.

    Args:
        file: CSV file in UTF-8 with a header row.
        column: The column that holds the labels.
        paths: The training images, relative to the data root, with forward slashes.
        classes: K class names.
        ignored_paths: Other images that rows may name, such as test images. These rows are skipped.

    Returns:
        (N,) int64, in the order of ``paths``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a row names an unknown image or class, or an image has no row or two
            different labels.
    """
    position = {path: i for i, path in enumerate(paths)}
    indices = {str(k): k for k in range(len(classes))} | {name: k for k, name in enumerate(classes)}
    labels = [-1] * len(paths)
    for line, (path_cell, label_cell) in read_columns(file, ("path", column)):
        path, text = path_cell.replace("\\", "/").removeprefix("./"), label_cell.strip()
        if path not in position:
            if path in ignored_paths:
                continue
            raise ValueError(_unknown_path(file, line, path, paths))
        label = indices.get(text)
        if label is None:
            raise ValueError(
                f"{file}, line {line}: the label {text!r} of {path} in column {column!r} is neither a class name nor "
                f"an index from 0 to {len(classes) - 1}; {did_you_mean(text, classes)}"
            )
        i = position[path]
        if labels[i] not in (-1, label):
            raise ValueError(
                f"{file}, line {line}: {path} has the label {text!r} here and {classes[labels[i]]!r} in an earlier "
                f"line: keep only one of these lines"
            )
        labels[i] = label
    missing = [path for path, label in zip(paths, labels, strict=True) if label < 0]
    if missing:
        raise ValueError(
            f"{file} has no row for {len(missing)} of {len(paths)} training images, such as {missing[0]}: add the rows "
            f"or remove the images"
        )
    return torch.tensor(labels, dtype=torch.int64)


def _unknown_path(file: Path, line: int, path: str, paths: Sequence[str]) -> str:
    same_name = [image for image in paths if image.endswith("/" + path)]
    hint = f"did you mean {same_name[0]}?" if same_name else f"paths look like {paths[0]}"
    return f"{file}, line {line}: there is no training image {path!r} in the data folder; {hint}"
