"""Check that files can be written to a folder, before the work begins whose results go there."""

from __future__ import annotations

import os
from pathlib import Path


def check_writable(folder: Path) -> None:
    """Create a folder if it does not exist, and check that a file can be written there.

    Raises:
        OSError: If no file can be written there; the message names the flag for another folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"Cannot write to the output folder {folder}: {error.strerror}. Choose another folder with --out."
        ) from error
