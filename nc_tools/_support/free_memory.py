"""How much memory this process may still allocate."""

from pathlib import Path


def available_memory() -> float:
    """Return the free memory in bytes: that of the system, or that of the container if it is less.

    Example:
        >>> available_memory() > 0
        True
    """
    import psutil

    return max(0.0, min(float(psutil.virtual_memory().available), _free_in_container()))


def _free_in_container() -> float:
    """Return the free memory of the control group that this process runs in, which psutil does not read."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = float((group / "memory.max").read_text(encoding="ascii"))
        return limit - float((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no control group, or no limit: then the file holds the word "max"
        return float("inf")
