"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path

_UNKNOWN = 4e9


def available_memory() -> float:
    """Return free memory in bytes: the system's, or a container's limit where lower.

    Example:
        >>> available_memory() > 0
        True
    """
    return max(0.0, min(_system(), _container()))


def _system() -> float:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    try:
        return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN


def _container() -> float:
    group = Path("/sys/fs/cgroup")
    try:
        limit = float((group / "memory.max").read_text(encoding="ascii"))
        return limit - float((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such limit, or the word "max"
        return float("inf")
