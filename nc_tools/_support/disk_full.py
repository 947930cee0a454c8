"""Telling a disk that is full from every other trouble with files."""

from __future__ import annotations

import errno
import os

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException) -> bool:
    """Tell whether a file could not be written for want of room: a full disk, a quota, a largest size of files.

    Libraries that write by themselves (safetensors) raise errors of their own, which say so in words alone.

    Example:
        >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
        True
        >>> is_disk_full(FileNotFoundError(errno.ENOENT, "No such file or directory"))
        False
    """
    if isinstance(error, OSError):
        return error.errno in _CODES
    return any(os.strerror(code) in str(error) for code in _CODES)
