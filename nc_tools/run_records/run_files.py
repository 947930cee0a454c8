"""The files of a run's folder as bytes, to carry a record to another machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def read_run_files(path: Path) -> dict[str, bytes]:
    """Return the files of a run's folder by their relative paths, without links and half-written files."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.is_symlink() and not file.name.startswith(".")
    }


def write_run_files(path: Path, files: Mapping[str, bytes]) -> None:
    """Write the folder of a run, and replace the one that is there. It appears in one step, with all its files.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "runs" / "a-final-0"
        >>> write_run_files(path, {"final.json": b"{}", "figures/curve.svg": b"<svg/>"})
        >>> read_run_files(path)
        {'figures/curve.svg': b'<svg/>', 'final.json': b'{}'}
    """
    staged, removed = (path.with_name(f".{path.name}.{word}{os.getpid()}") for word in ("", "old."))
    shutil.rmtree(staged, ignore_errors=True)
    (staged / "figures").mkdir(parents=True)
    for name, content in files.items():
        file = staged / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    if path.exists():
        path.rename(removed)
    staged.rename(path)
    shutil.rmtree(removed, ignore_errors=True)
