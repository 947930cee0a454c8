"""A table of images: its rows, and which column names the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data.short_list import quoted, short_list
from nc_tools.data.table_paths import ImageIndex, PathMatch
from nc_tools.data.table_text import Grid, ragged_lines, read_grids

_QUOTED = 40
_SAMPLE = 400


@dataclass(frozen=True)
class Table:
    """A table whose rows name images.

    Attributes:
        file: The file.
        columns: Names of the columns; "column 1" and so on where the file has no header.
        rows: The cells of each row, as text without blanks at its ends.
        lines: The line number of each row.
        form: How the file was read, for people.
        path_column: Position of the column that names images.
        match: The image that each row names.
    """

    file: Path
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]
    form: str
    path_column: int
    match: PathMatch

    def cells(self, column: int) -> list[str]:
        """Return the cells of a column."""
        return [row[column] for row in self.rows]

    def position(self, name: str) -> int:
        """Return the position of a named column.

        Raises:
            ValueError: If there is no such column, or several.
        """
        places = [i for i, column in enumerate(self.columns) if column == name]
        places = places or [i for i, column in enumerate(self.columns) if column.lower() == name.lower()]
        if len(places) == 1:
            return places[0]
        shown = short_list([quoted(column) for column in self.columns], 12)
        if places:
            raise ValueError(f"{self.file} has {len(places)} columns {name!r}: rename all but one")
        hint = did_you_mean(name, self.columns)
        raise ValueError(f"{self.file} has no column {name!r}: its columns are {shown}; {hint}")


def find_table(file: Path, index: ImageIndex, path_column: str | None = None) -> Table:
    """Read a table and find the column that names images, by its values.

    The column is the one that names the most different images. A first row that names an image is no header.

    Args:
        file: The table.
        index: The images that it may name.
        path_column: Name of the column, if it is known; None to find it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If no column names an image.
    """
    grids = read_grids(file)
    for grid in grids:
        if (table := _as_table(grid, index, path_column)) is not None:
            return table
    raise ValueError(_nothing_found(file, grids, index, path_column))


def _as_table(grid: Grid, index: ImageIndex, path_column: str | None) -> Table | None:
    """Return the table in which a column names images; None if no column does."""
    body = grid.rows[1:] or grid.rows
    width = len(grid.rows[0])
    if path_column is not None:
        names = [cell.lower() for cell in grid.rows[0]]
        if names.count(path_column.lower()) != 1:
            return None
        candidates = [names.index(path_column.lower())]
    else:
        candidates = list(range(width))
    best = _path_column(index, body, candidates)
    match = index.match([row[best] for row in body])
    if not _images_found(match):
        return None
    header = grid.header if grid.header is not None else not _names_an_image(index, grid.rows[0][best])
    columns = [f"column {j + 1}" for j in range(width)]
    if header:
        columns = [name or f"column {j + 1}" for j, name in enumerate(grid.rows[0])]
    rows, lines = (grid.rows[1:], grid.lines[1:]) if header else (grid.rows, grid.lines)
    if len(rows) != len(body):
        match = index.match([row[best] for row in rows])
    return Table(grid.file, tuple(columns), rows, lines, grid.form, best, match)


def _path_column(index: ImageIndex, rows: Sequence[Sequence[str]], candidates: Sequence[int]) -> int:
    """Return the position of the column that names the most different images.

    A sample of the rows decides, or all rows if the sample names no image.
    """
    if len(candidates) == 1:
        return candidates[0]
    for part in (rows[:: max(1, len(rows) // _SAMPLE)], rows):
        matches = {j: _images_found(index.match([row[j] for row in part])) for j in candidates}
        if any(matches.values()):
            break
    return max(candidates, key=lambda j: matches[j])


def _images_found(match: PathMatch) -> int:
    return len({i for i in match.images if i is not None}) + len(match.several)


def _names_an_image(index: ImageIndex, cell: str) -> bool:
    match = index.match([cell])
    return match.share > 0


def _nothing_found(file: Path, grids: Sequence[Grid], index: ImageIndex, path_column: str | None) -> str:
    grid = grids[0]
    if path_column is not None:
        shown = short_list([quoted(cell, _QUOTED) for cell in grid.rows[0]], 12)
        if path_column.lower() not in (cell.lower() for cell in grid.rows[0]):
            return f"{file} has no column {path_column!r}: its first row is {shown}"
    second = min(1, len(grid.rows) - 1)
    shown = short_list([quoted(cell, _QUOTED) for cell in grid.rows[second]])
    if not second:
        return f"{file} has one line only, {shown}, which names no image: it must hold a row for each image"
    images = f"images look like {index.files[0]}" if index.files else "there are no images"
    ragged = ragged_lines(grid) if len(grid.rows[0]) == 1 else ""
    advice = "write the names as the images have them, or give their folder after @, as in table:FILE@FOLDER"
    return (
        f"no column of {file} names an image: line {grid.lines[second]} holds {shown}, and {images}"
        f"{f'; {ragged}' if ragged else f': {advice}'}"
    )
