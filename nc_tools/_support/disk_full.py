"""Recognize the errors that mean that a disk is full."""

from __future__ import annotations

import errno
import os

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException) -> bool:
    """Return True if a file could not be written for lack of space: a full disk, a quota or a limit on file sizes.

    Libraries that write files themselves (safetensors) raise errors of their own, which have the system's message but
    not its error number.

    Example:
        >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
        True
        >>> is_disk_full(FileNotFoundError(errno.ENOENT, "No such file or directory"))
        False
    """
    if isinstance(error, OSError):
        return error.errno in _CODES
    return any(os.strerror(code) in str(error) for code in _CODES)
