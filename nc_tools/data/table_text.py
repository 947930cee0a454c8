"""Read a table or list from a text file: CSV with any separator, columns separated by blanks, JSON; cells stay text.

What the columns mean is decided elsewhere, by their values. A file may be split into columns in several ways, and only
its values show which is right: :func:`read_grids` returns all of these, the most likely first.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from nc_tools._support.existing_file import check_file
from nc_tools.data.table_json import json_grids

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_QUOTED = 60


@dataclass(frozen=True)
class Grid:
    """Rows of cells as they stand in a file.

    Attributes:
        file: The file.
        rows: The cells of each row, all rows of the same width; a header, if there is one, is the first row.
        lines: The line number of each row, or its number in a JSON file.
        form: How the file was read, for people.
        header: True if the first row is a header, None if only the values can tell.
    """

    file: Path
    rows: list[list[str]]
    lines: list[int]
    form: str
    header: bool | None = None


def read_grids(file: Path) -> list[Grid]:
    r"""Return the ways in which a file may be split into columns, the most likely first.

    Text is UTF-8 with or without a byte order mark, UTF-16 with one, or else Windows-1252. Blank lines are ignored. So
    are lines before the first row that begin with "#", hold only a number, or read like ``sep=;``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not text, or holds no rows.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "list.txt"
        >>> _ = file.write_text("a/1.jpg 0\nb/my 2.jpg 1\n")
        >>> [grid.rows for grid in read_grids(file)][0]
        [['a/1.jpg', '0'], ['b/my 2.jpg', '1']]
    """
    check_file(file, "table")
    raw = file.read_bytes()
    text, encoding = _decoded(file, raw)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.lstrip()[:1] in ("[", "{"):
        return [Grid(file, rows, lines, form, header=True) for rows, lines, form in json_grids(file, text)]
    skipped, declared = _leading_lines(text)
    numbered = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if i > skipped and line.strip()]
    if not numbered:
        raise ValueError(f"{file} is empty: it must hold a row for each image")
    separators = [declared] if declared else list(_SEPARATORS)
    grids = [grid for separator in separators if (grid := _separated(file, text, skipped, separator, encoding))]
    grids.sort(key=lambda grid: -len(grid.rows[0]))
    return grids if declared and grids else grids + _blank_separated(file, numbered, encoding)


def ragged_lines(grid: Grid) -> str:
    """Return a sentence about the first line with another number of values than most lines, or "".

    For a file that is read as one value a line: its lines have different numbers of values with every separator.
    """
    for separator in _SEPARATORS:
        widths = [len(next(csv.reader([row[0]], delimiter=separator))) for row in grid.rows]
        usual = max(set(widths), key=widths.count)
        if usual > 1 and len(set(widths)) > 1:
            i = next(i for i, width in enumerate(widths) if width != usual)
            return (
                f"line {grid.lines[i]} has {widths[i]} values where most lines have {usual}: "
                f"{grid.rows[i][0][:_QUOTED]!r}; put a value that contains {separator!r} in quotes"
            )
    return ""


def _decoded(file: Path, raw: bytes) -> tuple[str, str]:
    """Return the text of a file and the name of its encoding."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if raw.startswith(mark):
            return raw.decode(name, errors="replace"), "UTF-8" if name == "utf-8-sig" else "UTF-16"
    if b"\0" in raw[:4096] or raw[:4] in (b"PK\x03\x04", b"PAR1", b"\x93NUM"):
        raise ValueError(f"{file} is not text: save the table as CSV in UTF-8")
    try:
        return raw.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError as error:
        if b"\0" in raw or any(byte < 9 for byte in raw[:4096]):
            raise ValueError(f"{file} is not text (at byte {error.start}): save the table as CSV in UTF-8") from None
        return raw.decode("cp1252", errors="replace"), "Windows-1252, because it is not UTF-8"


def _leading_lines(text: str) -> tuple[int, str]:
    """Return how many lines come before the rows, and the separator that one of them declares, or ""."""
    count, declared = 0, ""
    lines = text.split("\n")
    for line in lines:
        plain = line.strip()
        if plain.lower().startswith("sep=") and len(line) == 5:
            declared = line[4]
        elif plain and not plain.startswith("#") and not _counts(plain, lines[count + 1 :]):
            break
        count += 1
    return count, declared


def _counts(line: str, following: list[str]) -> bool:
    """Return True if a line is the number of the lines after it, with or without a header."""
    if not line.isdecimal():
        return False
    return int(line) in (rows := sum(1 for other in following if other.strip()), rows - 1)


def _separated(file: Path, text: str, skipped: int, separator: str, encoding: str) -> Grid | None:
    """Return the file split at a separator; None if the rows differ in width or have a single cell.

    Raises:
        ValueError: If it cannot be read as CSV.
    """
    body = "\n".join(text.split("\n")[skipped:])
    rows, lines = [], []
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                lines.append(skipped + reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{file} is not a readable table ({error}): save it again as CSV in UTF-8") from None
    rows = _same_width(rows)
    if not rows or len(rows[0]) < 2:
        return None
    return Grid(file, rows, lines, f"separated by {_SEPARATORS.get(separator, repr(separator))}, {encoding}")


def _same_width(rows: list[list[str]]) -> list[list[str]]:
    """Return rows of the same width, or [] if they differ.

    With at least three rows, an empty last cell of the header is removed if the other rows lack it, and so is an empty
    last cell of all other rows if the header lacks it. Else a header with one cell less gets an empty first cell.
    """
    width = len(rows[-1])
    if len(rows) < 3:
        return rows if len(rows[0]) == width else []
    if any(len(row) != width for row in rows[1:]):
        return []
    if len(rows[0]) == width + 1 and not rows[0][-1]:
        rows = [rows[0][:-1], *rows[1:]]
    elif len(rows[0]) == width - 1 and all(not row[-1] for row in rows[1:]):
        rows = [rows[0], *(row[:-1] for row in rows[1:])]
    elif len(rows[0]) == width - 1:
        rows = [["", *rows[0]], *rows[1:]]
    return rows if len(rows[0]) == len(rows[-1]) else []


def _blank_separated(file: Path, numbered: list[tuple[int, str]], encoding: str) -> list[Grid]:
    """Return the file split at blanks: at all of them, at the last one of each line, and not at all."""
    lines = [number for number, _ in numbered]
    texts = [line.strip() for _, line in numbered]
    grids = []
    at_all = _same_width([text.split() for text in texts])
    if at_all and len(at_all[0]) > 2:
        grids.append(Grid(file, at_all, lines, f"separated by blanks, {encoding}"))
    at_last = [text.rsplit(None, 1) for text in texts]
    if all(len(row) == 2 for row in at_last):
        grids.append(Grid(file, at_last, lines, f"separated by the last blank of each line, {encoding}"))
    grids.append(Grid(file, [[text] for text in texts], lines, f"one value a line, {encoding}"))
    return grids
