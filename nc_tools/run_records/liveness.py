"""Whether the process that writes a run is still alive."""

import socket

import psutil

# The start of a process is computed from the boot time, which changes a little when the clock is corrected.
START_TOLERANCE_S = 5.0


def host() -> str:
    """Return the name of this machine, as it is written into records."""
    return socket.gethostname()


def started_at(pid: int) -> float | None:
    """Return when process ``pid`` started, in seconds since the epoch; None if it has ended or may not be inspected.

    The system reuses process numbers: a process is identified by its number together with its start. A process that
    has ended but was not yet waited for (a zombie) counts as ended.
    """
    try:
        return _running(pid).create_time()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def is_alive(pid: int, started: float | None) -> bool:
    """Return True if the process with this number and start is still running; True too if it may not be inspected.

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
    """Return a process.

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
