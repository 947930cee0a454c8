"""Open files that other people may have made: regular files only, of a bounded size.

If a path is a pipe or a device instead of a file, reading it could block forever or never end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from nc_tools._support.damaged_file import DamagedFileError


def open_regular(path: Path, *, max_bytes: int | None = None) -> BinaryIO:
    """Open a file for reading; refuse a folder, a pipe, a device, and a file that is too large.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is not a regular file, or larger than ``max_bytes``.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(path, os.fstat(descriptor), max_bytes)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: Path, *, max_bytes: int | None = None) -> None:
    """Raise the errors of :func:`open_regular`, for a library that opens the file itself.

    Example:
        >>> check_regular(Path("/"))
        Traceback (most recent call last):
        ...
        nc_tools._support.damaged_file.DamagedFileError: / is a folder, not a file
    """
    _check(path, path.stat(), max_bytes)


def _check(path: Path, status: os.stat_result, max_bytes: int | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise DamagedFileError(f"{path} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise DamagedFileError(f"{path} is a pipe or a device, not a file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise DamagedFileError(
            f"{path} has {status.st_size:,} bytes, more than the {max_bytes:,} that such a file may have"
        )
