"""A bound on what a file of torch.save unpacks to."""

from __future__ import annotations

import zipfile
from pathlib import Path


def check_stored(path: Path) -> None:
    """Raise a ValueError if a zip archive holds compressed parts, which could unpack to any size.

    ``torch.save`` writes zip archives without compression. A file that is no zip archive passes.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("it is compressed, as torch.save never writes it")
