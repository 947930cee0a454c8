"""The rows of a table that give images: each with one image, one label and perhaps a group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nc_tools.data.short_list import quoted
from nc_tools.data.table import Table, find_table
from nc_tools.data.table_columns import ColumnRoles, read_columns_of
from nc_tools.data.table_config import TableConfig
from nc_tools.data.table_labels import merge_rows, row_labels
from nc_tools.data.table_paths import ImageIndex


@dataclass(frozen=True)
class TableRows:
    """Those rows of one table that name an image, in the order of the table.

    Attributes:
        table: The table.
        columns: What its columns mean.
        rows: Positions of the rows.
        images: For each of these rows the position of its image among the files.
        labels: For each of these rows its label as text.
        label_source: Where the labels stand, for people.
        sentences: How the table was read, for people.
    """

    table: Table
    columns: ColumnRoles
    rows: Sequence[int]
    images: Sequence[int]
    labels: Sequence[str]
    label_source: str
    sentences: tuple[str, ...]

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The group of each row, or None without groups; a row whose cell is empty is a group of its own."""
        if (j := self.columns.group) is None:
            return None
        table = self.table
        return tuple(table.rows[row][j] or f"line {table.lines[row]} of {table.file.name}" for row in self.rows)


def read_table_rows(
    file: Path, column: str | None, files: tuple[str, ...], root: Path, config: TableConfig, *, skip_missing: bool
) -> TableRows:
    """Read a table and return the rows that give images.

    Args:
        file: The table.
        column: Name of the label column, or several names separated by commas; None to find it.
        files: The images that the table may name, relative to the root.
        root: The folder of the images.
        config: Settings that overrule what is found.
        skip_missing: Leave out rows without an image, instead of stopping.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If no column names images, it is not clear what the labels are, or rows are without image or label.
    """
    table = read_table(file, files, root, config.path_column)
    columns = read_columns_of(table, column, config.split_column, config.group_column)
    matched = len({image for image in table.match.images if image is not None})
    sentences = [
        f"table {file.name} ({table.form}): {len(table.rows):,} rows; {table.columns[table.path_column]} names "
        f"{matched:,} of {len(files):,} images ({table.match.how})",
        *missing_sentence(table, root, skip_missing=skip_missing),
    ]
    texts = row_labels(table, columns.labels, files, config.unclear_labels, config.positive)
    chosen, merged = merge_rows(table, texts.labels, config.unclear_labels)
    by_row = sorted((row, image) for image, row in chosen.items())
    labels = [label for row, _ in by_row if (label := texts.labels[row]) is not None]
    sentences += [*texts.sentences, *merged, *columns.sentences]
    rows, images = [row for row, _ in by_row], [image for _, image in by_row]
    return TableRows(table, columns, rows, images, labels, texts.source, tuple(sentences))


def read_table(file: Path, files: Sequence[str], root: Path, path_column: str | None = None) -> Table:
    """Read a table whose rows name some of the files; a name that fits several files is refused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If no column names an image, or a row names several.
    """
    beside = os.path.relpath(file.resolve().parent, root)
    index = ImageIndex(files, None if beside.startswith("..") else beside.removeprefix("."))
    table = find_table(file, index, path_column)
    if table.match.several:
        value, one, other = table.match.several[0]
        raise ValueError(
            f"{len(table.match.several):,} rows of {file} name more than one image, such as {quoted(value)}: {one} and "
            f"{other}; write their paths, or give the folder of the right ones after @, as in table:FILE@FOLDER"
        )
    return table


def missing_sentence(table: Table, root: Path, *, skip_missing: bool) -> list[str]:
    """Return a sentence about rows that name no image, if there are any.

    Raises:
        ValueError: If there are some and they are not to be left out.
    """
    missing = [row for row, image in enumerate(table.match.images) if image is None]
    if missing and not skip_missing:
        cell, line = table.rows[missing[0]][table.path_column], table.lines[missing[0]]
        raise ValueError(
            f"{len(missing):,} of {len(table.rows):,} rows of {table.file} name no image below {root}, such as "
            f"{quoted(cell)} in line {line}: add the images, or leave these rows out with --skip-missing"
        )
    return [f"{len(missing):,} rows of {table.file.name} name no image and are left out"] if missing else []
