"""CSV files as text: whatever keeps one from being read is said in one sentence."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def open_csv(file: Path) -> Iterator[TextIO]:
    """Open a CSV in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: If what is read inside is no text in UTF-8, or no CSV.

    Example:
        >>> import tempfile
        >>> where = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = where.write_bytes("path,label".encode("utf-16"))
        >>> with open_csv(where) as text:
        ...     text.read()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: a CSV must be text in UTF-8, and ...labels.csv is not (byte 0): save it again as CSV UTF-8
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            yield text
    except UnicodeDecodeError as error:
        raise ValueError(
            f"a CSV must be text in UTF-8, and {file} is not (byte {error.start}): save it again as CSV UTF-8"
        ) from None
    except csv.Error as error:
        raise ValueError(f"{file} cannot be read as a CSV ({error}): is it another kind of file?") from None
