"""How many processor cores this process may use."""

import os


def available_cores() -> int:
    """Return the number of cores that this process may use: a scheduler may allow fewer than the machine has.

    Example:
        >>> available_cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
