"""Read CSV files, with an error message that names the file and the line for anything that is wrong with them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from nc_tools._support.existing_file import check_file
from nc_tools._support.suggestions import did_you_mean


@contextmanager
def open_csv(file: Path) -> Iterator[TextIO]:
    """Open a CSV file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the text that is read inside is not UTF-8 or not CSV.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = file.write_bytes("path,label".encode("utf-16"))
        >>> with open_csv(file) as text:
        ...     text.read()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: ...labels.csv is not text in UTF-8 (at byte 0): save it as CSV UTF-8
    """
    check_file(file, "CSV file")
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            yield text
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8 (at byte {error.start}): save it as CSV UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{file} is not a readable CSV file ({error}): save it again as CSV UTF-8") from None


def read_columns(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield for each row of a CSV file its line number and its text in the named columns.

    Args:
        file: CSV file in UTF-8 with a header row.
        columns: The columns to read. A cell that is not there reads as "".

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing or not unique, or the file is not CSV in UTF-8.
    """
    with open_csv(file) as text:
        reader = csv.DictReader(text)
        header = list(reader.fieldnames or [])
        for name in columns:
            if name not in header:
                hint = f"its columns are {', '.join(header)}; {did_you_mean(name, header)}" if header else "it is empty"
                raise ValueError(f"{file} has no column {name!r}: {hint}")
            if header.count(name) > 1:
                raise ValueError(f"{file} has {header.count(name)} columns {name!r}: rename all but one")
        for row in reader:
            yield reader.line_num, [row[name] or "" for name in columns]
