"""The name of a table of images on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class TableName(NamedTuple):
    """A table as it is named on a command line, ``FILE[:COLUMN][@ROOT]``: file, label column, folder of the images."""

    file: Path
    column: str | None
    root: Path | None


def parse_table_name(text: str) -> TableName:
    """Split ``FILE[:COLUMN][@ROOT]``; a file that exists is never split, whatever its name.

    Raises:
        FileNotFoundError: If the file, or the folder after "@", does not exist.
    """
    before, at, root = text.rpartition("@")
    options = [TableName(Path(text).expanduser(), None, None)]
    options += _with_column(before, Path(root).expanduser()) if at else []
    options += _with_column(text, None)
    existing = [option for option in options if option.file.is_file()]
    for option in existing:
        if option.root is None or option.root.is_dir():
            return option
    if existing:
        raise FileNotFoundError(f"the folder of images {existing[0].root} does not exist: check the path after @")
    shortest = min((option.file for option in options), key=lambda file: len(str(file)))
    raise FileNotFoundError(
        f"there is no table {shortest}: write table:FILE, table:FILE:COLUMN or table:FILE:COLUMN@FOLDER"
    )


def _with_column(text: str, root: Path | None) -> list[TableName]:
    file, colon, column = text.rpartition(":")
    whole = TableName(Path(text).expanduser(), None, root)
    return [whole, TableName(Path(file).expanduser(), column, root)] if colon and file else [whole]
