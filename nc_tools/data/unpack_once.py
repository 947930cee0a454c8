"""Unpack a data set that lies in few large files into a folder, and again only when these files change."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from nc_tools.data.cifar import default_root

TABLE = "table.csv"
"""Name of the table of unpacked images: a row for each image with its part and all other columns."""


def unpack_once(path: Path, files: Sequence[Path], write: Callable[[Path], None]) -> Path:
    """Return the folder of unpacked images. It appears when it is complete, and is made again when a file changes.

    Args:
        path: The source, after which the folder is named.
        files: All files of the source.
        write: Called with an empty folder, into which it writes everything.
    """
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)  # a pattern of shards has braces and stars
    folder = default_root() / "unpacked" / f"{name}-{place}"
    if (folder / "key").is_file() and (folder / "key").read_text() == key:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        whole = Path(made) / "data"
        whole.mkdir()
        write(whole)
        (whole / "key").write_text(key)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            whole.rename(folder)
        except OSError:  # another process was faster
            if not (folder / "key").is_file():
                raise
    return folder
