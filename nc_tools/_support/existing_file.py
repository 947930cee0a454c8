"""Check that a file that the user named is there, and is a file."""

from __future__ import annotations

from pathlib import Path


def check_file(path: Path, what: str) -> None:
    """Raise an error if there is no file at a path.

    Args:
        path: As the user gave it.
        what: What it should be, such as "table".

    Raises:
        FileNotFoundError: If nothing is there, or something that is no file, such as a folder.

    Example:
        >>> check_file(Path("."), "table")
        Traceback (most recent call last):
        FileNotFoundError: the table . is a folder: give the path of a file
    """
    if path.is_file():
        return
    if path.is_dir():
        raise FileNotFoundError(f"the {what} {path} is a folder: give the path of a file")
    if path.exists():
        raise FileNotFoundError(f"the {what} {path} is no regular file: give the path of a file")
    raise FileNotFoundError(f"the {what} {path} does not exist: check the path")
