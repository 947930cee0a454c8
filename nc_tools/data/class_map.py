"""Read the names of classes whose labels are numbers or codes: a class map."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nc_tools._support.existing_file import check_file
from nc_tools.data.label_column import whole_number
from nc_tools.data.table_text import read_grids


def read_class_map(file: Path, labels: Collection[str]) -> dict[str, str]:
    """Read a class map: the name of each label.

    The file is JSON (``{"0": "ape"}``, ``{"ape": 0}`` or a list of names), a table of two columns (``0,ape`` or
    ``0 ape``, with or without a header), or has one name a line. Names without labels are for labels that are whole
    numbers. They are numbered from 1 if the labels run from 1 to the number of names, and else from 0.

    Args:
        file: The class map.
        labels: The labels that occur, as text.

    Returns:
        Names by label, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another form, or names without labels do not fit the labels. That includes labels from 1
            to less than the number of names, because the first name may then belong to 0 or to 1.
    """
    check_file(file, "class map")
    text = file.read_text(encoding="utf-8-sig", errors="replace").strip()
    if text[:1] in ("{", "["):
        return _from_json(file, text, labels)
    grid = next((grid for grid in read_grids(file) if len(grid.rows[0]) == 2), read_grids(file)[-1])
    if len(grid.rows[0]) == 1:
        return _by_position(file, [row[0] for row in grid.rows], labels)
    rows = grid.rows if _is_entry(grid.rows[0], labels) else grid.rows[1:]
    keys = 0 if sum(row[0] in labels for row in rows) >= sum(row[1] in labels for row in rows) else 1
    return {row[keys]: row[1 - keys] for row in rows}


def _is_entry(row: list[str], labels: Collection[str]) -> bool:
    return any(cell in labels or whole_number(cell) is not None for cell in row)


def _from_json(file: Path, text: str, labels: Collection[str]) -> dict[str, str]:
    try:
        value: Any = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        value = None
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return _by_position(file, value, labels)
    if isinstance(value, dict) and value and all(isinstance(name, str) for name in value.values()):
        return {str(key): name for key, name in value.items()}
    if isinstance(value, dict) and value and all(isinstance(number, int) for number in value.values()):
        return {str(number): str(name) for name, number in value.items()}
    raise ValueError(f'{file} must be a class map such as {{"0": "ape", "1": "bat"}} or a list of names')


def _by_position(file: Path, names: list[str], labels: Collection[str]) -> dict[str, str]:
    """Return names by their position, counted from 1 if the labels are 1 to the number of names, and else from 0."""
    numbers = sorted(number for label in labels if (number := whole_number(label)) is not None)
    if len(numbers) < len(labels) or not numbers:
        raise ValueError(f"{file} has names without labels, which fit only labels that are whole numbers")
    first = 1 if numbers[0] == 1 and numbers[-1] == len(names) else 0
    if numbers[0] < 0 or numbers[-1] - first >= len(names):
        raise ValueError(
            f"{file} has {len(names)} names, but the labels are {numbers[0]} to {numbers[-1]}: give a map with labels, "
            'such as {"0": "ape"}'
        )
    if numbers[0] == 1 and first == 0:
        raise ValueError(
            f"{file} has {len(names)} names for labels from 1 to {numbers[-1]}, so the first name may belong to 0 or "
            'to 1: give a map with labels, such as {"1": "ape"}'
        )
    return {str(first + i): name for i, name in enumerate(names)}
