"""Check whether the process that writes a run is still alive."""

import socket

import psutil

# The start of a process is computed from the boot time, which changes a little when the clock is corrected.
START_TOLERANCE_S = 5.0


def host() -> str:
    """Return the name of this machine, as written into a run's status.json."""
    return socket.gethostname()


def started_at(pid: int) -> float | None:
    """Return the start time of process ``pid`` (Unix time); None if it has ended or may not be inspected.

    The system reuses process numbers: a process is identified by its number together with its start. A process that
    has ended but was not yet waited for (a zombie) counts as ended.
    """
    try:
        return _running(pid).create_time()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def is_alive(pid: int, started: float | None) -> bool:
    """Return True if the process with this number and start time is running, or if it may not be inspected.

    Args:
        pid: Process number.
        started: Start in seconds since the epoch, as ``started_at`` returned it; None compares the number alone.
    """
    try:
        now = _running(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return started is None or abs(now - started) <= START_TOLERANCE_S


def _running(pid: int) -> psutil.Process:
    """Return the running process with this number.

    Raises:
        psutil.NoSuchProcess: If it has ended.
        psutil.AccessDenied: If it exists and this user may not inspect it.
    """
    if pid < 0:  # only a damaged record holds such a number
        raise psutil.NoSuchProcess(pid)
    process = psutil.Process(pid)
    if process.status() == psutil.STATUS_ZOMBIE:
        raise psutil.NoSuchProcess(pid)
    return process
