"""Remove what processes that were killed left half-written in an output folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import psutil

# The hidden names that atomic_write, RunRecord.create and check_writable give to what they have not completed. Each
# holds the number of the process that writes it.
_PARTIAL = (
    re.compile(r"\..+\.(?P<pid>\d{1,9})\.\d+\.part"),
    re.compile(r"\..+-(?:final|holdout|tuning|loop)-[0-9a-f]+\.(?:old\.)?(?P<pid>\d{1,9})"),
    re.compile(r"\.writable-(?P<pid>\d{1,9})"),
)
_FOLDERS = (".", "report", "report/*", "cache", "runs", "runs/*", "runs/*/figures", "seeds", "seeds/trials")


def remove_partial_files(root: Path) -> None:
    """Remove half-written files and run folders of processes that have ended; those of living processes stay.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("tuning.json", ".tuning.json.999999999.7.part"):
        ...     (root / name).touch()
        >>> remove_partial_files(root)
        >>> [path.name for path in root.iterdir()]
        ['tuning.json']
    """
    for folder in _FOLDERS:
        for path in root.glob(f"{folder}/.*"):
            match = next((hit for pattern in _PARTIAL if (hit := pattern.fullmatch(path.name))), None)
            if match is None or psutil.pid_exists(int(match["pid"])):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
