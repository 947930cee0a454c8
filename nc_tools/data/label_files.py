"""Labels of training images from a table, matched by path: given labels, such as human annotations, and true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.data.label_column import LabelError, labels_of
from nc_tools.data.short_list import quoted
from nc_tools.data.table import Table
from nc_tools.data.table_rows import read_table


@dataclass(frozen=True)
class LabeledPaths:
    """The images that a table of labels may name.

    Attributes:
        root: The folder that paths are relative to.
        paths: The training images.
        others: Images that rows may name and whose labels are not used, such as test images.
    """

    root: Path
    paths: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileLabels:
    """Labels that were read from a table.

    Attributes:
        labels: (N,) int64; -1 for a training image without a row.
        sentences: How they were read, for people.
    """

    labels: Tensor
    sentences: tuple[str, ...]


def read_labels(
    file: Path, column: str, images: LabeledPaths, classes: Sequence[str], *, skip_missing: bool = False
) -> FileLabels:
    """Read the label of each training image from a column of a table.

    The column that names the images is found by its values. The labels are class names or class indices, decided once
    for the whole column (see :func:`labels_of`).

    Args:
        file: The table.
        column: Name of the column of labels.
        images: The training images, and others that rows may name.
        classes: K names.
        skip_missing: Accept rows that name no image, and training images without a row.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If no column names images, the labels are no classes, rows disagree about an image, or rows or
            images have no counterpart and ``skip_missing`` is off.
    """
    table = read_table(file, (*images.paths, *images.others), images.root)
    cells = table.cells(table.position(column))
    rows = rows_of_images(table, images, skip_missing=skip_missing)
    labels = torch.full((len(images.paths),), -1, dtype=torch.int64)
    if empty := [row for row in rows if not cells[row]]:
        raise ValueError(f"{place(table, empty[0])}: no label in column {column!r}: fill it, or remove the row")
    try:
        values, how = labels_of([cells[row] for row in rows], classes)
    except LabelError as error:
        raise ValueError(_located(table, column, rows, error)) from None
    first: dict[int, int] = {}
    for row, label in zip(rows, values.tolist(), strict=True):
        image = table.match.images[row]
        assert image is not None  # noqa: S101 (rows_of_images returns rows with an image)
        if int(labels[image]) not in (-1, label):
            raise ValueError(
                f"{place(table, row)}: {images.paths[image]} has the label {quoted(cells[row])} here and "
                f"{quoted(cells[first[image]])} in line {table.lines[first[image]]}: keep only one of these lines"
            )
        labels[image] = label
        first.setdefault(image, row)
    without = [path for path, label in zip(images.paths, labels.tolist(), strict=True) if label < 0]
    if without and not skip_missing:
        raise ValueError(
            f"{file} has no row for {len(without):,} of {len(images.paths):,} training images, such as {without[0]}: "
            "add the rows, or leave these images out with --skip-missing"
        )
    unknown = sum(image is None for image in table.match.images)
    counts = [f"{unknown:,} rows name no image"] if unknown else []
    counts += [f"{len(without):,} training images have no row"] if without else []
    sentence = f"{len(rows):,} rows of {file.name}, column {column}" + (f"; {how}" if how else "")
    return FileLabels(labels, (sentence, *(f"{text} and are left out" for text in counts)))


def rows_of_images(table: Table, images: LabeledPaths, *, skip_missing: bool) -> list[int]:
    """Return the rows that name a training image.

    Raises:
        ValueError: If a row names no image at all and ``skip_missing`` is off.
    """
    for row, image in enumerate(table.match.images):
        if image is None and not skip_missing:
            cell = table.rows[row][table.path_column]
            number = sum(image is None for image in table.match.images)
            raise ValueError(
                f"{place(table, row)}: there is no image {quoted(cell)} in {images.root} ({number:,} such rows; images "
                f"look like {images.paths[0]}): correct the path, or leave such rows out with --skip-missing"
            )
    return [row for row, i in enumerate(table.match.images) if i is not None and i < len(images.paths)]


def place(table: Table, row: int) -> str:
    """Return where a row stands, for the beginning of a message.

    Args:
        table: The table.
        row: Position of the row.
    """
    return f"{table.file}, line {table.lines[row]}"


def _located(table: Table, column: str, rows: Sequence[int], error: LabelError) -> str:
    """Return the message for labels that are no classes, with the line of the first one."""
    if error.row is None:
        return f"column {column!r} of {table.file} {error}"
    row = rows[error.row]
    return f"{place(table, row)}, column {column!r}: {error}"
