"""Check whether the process that writes a run is still alive, even if the clock was set in the meantime."""

import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

# The system gives its start time in whole seconds and computes it again at each call: two readings can differ.
START_TOLERANCE_S = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessStart:
    """When a process started. The system reuses process numbers: number and start together identify a process.

    Attributes:
        time: Seconds since the epoch, by the clock at the time when it was read.
        since_boot: Seconds from the start of the system to that of the process; setting the clock does not change
            them. None in records of earlier versions.
        boot_id: Identifies this start of the system. None where the system has none, which is everywhere but on Linux.
    """

    time: float
    since_boot: float | None = None
    boot_id: str | None = None


def host() -> str:
    """Return the name of this machine, as written into a run's status.json."""
    return socket.gethostname()


def start_of(pid: int) -> ProcessStart | None:
    """Return the start of process ``pid``; None if it has ended or may not be inspected.

    A process that has ended but was not yet waited for (a zombie) counts as ended.
    """
    try:
        return _start(_running(pid))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def is_alive(pid: int, start: ProcessStart | None) -> bool:
    """Return True if the process with this number and start is running, or if it may not be inspected.

    Args:
        pid: Process number.
        start: As :func:`start_of` returned it; None compares the number alone.
    """
    try:
        now = _start(_running(pid))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    if start is None:
        return True
    if start.since_boot is not None and now.since_boot is not None and start.boot_id == now.boot_id is not None:
        return abs(now.since_boot - start.since_boot) <= START_TOLERANCE_S
    if None not in (start.boot_id, now.boot_id):
        return False  # the system has been started again
    return abs(now.time - start.time) <= START_TOLERANCE_S


def _start(process: psutil.Process) -> ProcessStart:
    boot = psutil.boot_time()
    created = process.create_time()
    return ProcessStart(created, created - boot, _boot_id())


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def _running(pid: int) -> psutil.Process:
    """Return the running process with this number.

    Raises:
        psutil.NoSuchProcess: If it has ended.
        psutil.AccessDenied: If it exists and this user may not inspect it.
    """
    if not 0 <= pid < 2**31:  # only a damaged record holds such a number
        raise psutil.NoSuchProcess(pid)
    process = psutil.Process(pid)
    if process.status() == psutil.STATUS_ZOMBIE:
        raise psutil.NoSuchProcess(pid)
    return process
