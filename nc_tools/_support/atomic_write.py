"""Write a file in one step: readers see the old file or the new one, never a part."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield the path of a new file beside ``path``, and rename it to ``path`` when the block ends without an error.

    If the block raises, or the process dies, the old file stays as it was; after an exception the new file is removed.
    The new file has the permissions that the umask gives, like any other file of its folder.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with atomic_write(target) as part:
        ...     _ = part.write_text("all of it")
        >>> [file.name for file in target.parent.iterdir()]
        ['notes.txt']
    """
    # Not made by tempfile: only the owner may read the files that it makes.
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
