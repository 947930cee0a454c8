"""Compare again whenever a run has ended, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from nc_tools._support.printable import printable
from nc_tools._support.signals import Killed, killed_on_sigterm
from nc_tools.comparison.compared_run import SCORED_KINDS, ComparedRun
from nc_tools.comparison.read_experiment import Experiment

PAUSE_SECONDS = 2.0
# Reading takes processor time from the training, so it may take at most this share of the time.
_SHARE = 0.1

Read = Callable[[], tuple[Sequence[ComparedRun], Experiment]]


def watch_runs(
    read: Read,
    show: Callable[[Sequence[ComparedRun], Experiment], object],
    say: Callable[[str], object],
    *,
    pause: float = PAUSE_SECONDS,
) -> None:
    """Read runs again and again, and show them whenever a final or loop run has ended since the last time.

    The loop ends with Ctrl-C and with SIGTERM. While there is nothing to compare, it prints the reason and goes on.

    Args:
        read: Returns all runs and their plan.
        show: Compares and prints.
        say: Prints a line.
        pause: Least number of seconds between two readings.

    Raises:
        OSError: If the runs cannot be read.
        ValueError: If the runs are damaged; not if there is nothing to compare yet.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        # A command that a script starts in the background ignores SIGINT, but `kill -INT` must still end it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt, Killed), killed_on_sigterm():
        shown: frozenset[tuple[str, str, int]] | None = None
        while True:
            began = time.monotonic()
            runs, experiment = read()
            ended = _ended(runs)
            if ended != shown:
                shown = ended
                try:
                    show(runs, experiment)
                except ValueError as error:
                    say(printable(f"Nothing to compare yet: {error}"))
                say(f"{time.strftime('%H:%M:%S')}  {_counts(runs)}. Ctrl-C ends.")
            time.sleep(max(pause, (time.monotonic() - began) / _SHARE))


def _ended(runs: Sequence[ComparedRun]) -> frozenset[tuple[str, str, int]]:
    """Return the runs that have ended, without those for tuning, which change no table."""
    scored = [run for run in runs if run.kind in SCORED_KINDS]
    return frozenset((run.run_id, run.status, run.created_ms) for run in scored if _has_ended(run))


def _has_ended(run: ComparedRun) -> bool:
    return run.status in ("FINISHED", "FAILED", "KILLED")


def _counts(runs: Sequence[ComparedRun]) -> str:
    """Return how many runs there are of each status, such as "12 of 35 runs finished, 1 running"."""
    scored = [run for run in runs if run.kind in SCORED_KINDS]
    others = Counter(run.status.lower() for run in scored if not run.finished)
    finished = len(scored) - others.total()
    return ", ".join([f"{finished} of {len(scored)} runs finished", *(f"{n} {name}" for name, n in others.items())])
