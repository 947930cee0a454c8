"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give the path of a new file beside ``path``, and move it there when the block ends well.

    A reader, and whoever comes after a crash, finds the old file or the new one, never a part. If the block raises,
    the old file stays and the part is removed. The new file is for whoever may read others of its folder.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "told.txt"
        >>> with atomic_write(target) as part:
        ...     _ = part.write_text("all of it")
        >>> [file.name for file in target.parent.iterdir()]
        ['told.txt']
    """
    # Not from tempfile, whose files are for their owner only.
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
