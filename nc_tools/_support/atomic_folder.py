"""Write a folder in one step: it is there with everything in it, or not at all."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``, and rename it to ``path`` when the block ends without an error.

    After an exception the new folder is removed; if the process is killed it stays, under a hidden name.

    Args:
        path: Must not exist, or be an empty folder.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "export"
        >>> with atomic_folder(target) as part:
        ...     _ = (part / "notes.txt").write_text("all of it")
        >>> [file.name for file in target.iterdir()]
        ['notes.txt']
    """
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    part.mkdir(parents=True)
    try:
        yield part
        part.replace(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
