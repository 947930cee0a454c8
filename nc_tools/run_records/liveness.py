"""Which process writes a run, whether it still lives, and how a request to end reaches the code that runs."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nc_tools._support.signals import Killed

# The start of a process is reckoned from the boot time, which the kernel derives anew after each clock correction.
START_TOLERANCE_S = 5.0


@contextmanager
def killed_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into a ``Killed`` exception within the block, so that ``finally`` and ``with`` still run.

    Schedulers end jobs with SIGTERM, and Python's default answer is to die on the spot, with nothing written.
    A handler that the user has set is left alone, and so are threads, where Python takes no handlers.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def raise_killed(_number: int, _frame: FrameType | None) -> None:
        raise Killed

    signal.signal(signal.SIGTERM, raise_killed)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def host() -> str:
    """Name of this machine, as records carry it."""
    return socket.gethostname()


def started_at(pid: int) -> float | None:
    """When process ``pid`` began, in seconds since the epoch; None if it is gone or the system does not say.

    Process numbers are reused: only number and start together name a process. A process that has ended but
    was not yet waited for (a zombie) counts as gone.
    """
    try:
        # The command name, in parentheses, may itself hold spaces and parentheses: read what follows the last one.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = next(
            line for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines() if line.startswith("btime ")
        )
    except (OSError, StopIteration):
        return None
    if fields[0] in "ZX":
        return None
    return float(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def is_alive(pid: int, started: float | None) -> bool:
    """Whether the process that had this number and start still lives; if nobody can tell, it does."""
    if Path("/proc/self/stat").exists():
        now = started_at(pid)
        if now is None:
            return False
        return started is None or abs(now - started) <= START_TOLERANCE_S
    if os.name != "posix":  # there, signal 0 would end the process instead of asking after it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
