"""The low-priority process that copies an output folder to MLflow while runs go on.

It reads its task as one JSON line from standard input, because a command line with credentials would be visible in the
list of processes. It pushes when files have changed, at once after a line "push" on standard input, and a last time
after any other line or the end of its parent. From then on it writes the state of the last push as JSON lines to
standard output.
"""

import contextlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.store import resolve_store
from nc_tools.tracking.sync_report import SyncReport

# Pushes may take this share of the time. The rest is left to the training on this machine, and to other users of the
# server.
SHARE = 0.1
WATCH_SECONDS = 1.0
PUSH = "push"
NICENESS = 10


class _Parent:
    """The process that started this one, and what it wants: a push now, or the last one.

    Args:
        on_stop: Called when it wants the last push, before ``stop`` is set.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self.stop = threading.Event()
        self._wake = threading.Event()
        self._process = os.getppid()
        self._on_stop = on_stop
        threading.Thread(target=self._listen, daemon=True).start()

    def rest(self, seconds: float) -> None:
        """Wait until the time is over, the parent wants something, or it has ended."""
        end = time.monotonic() + seconds
        while not (self._wake.is_set() or self.stop.is_set()) and (left := end - time.monotonic()) > 0:
            self._wake.wait(min(left, WATCH_SECONDS))
            # If the parent is killed, a forked child of it may keep the standard input open.
            if os.getppid() != self._process:
                self.stop.set()
        self._wake.clear()

    def _listen(self) -> None:
        while sys.stdin.readline().strip() == PUSH:
            self._wake.set()
        self._on_stop()
        self.stop.set()
        self._wake.set()


def run_sync_process() -> None:
    """Upload what is new at intervals, until the parent process asks for the last upload or ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what MLflow prints must not be read as an answer: it goes to stderr
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    task = json.loads(sys.stdin.readline())
    root = Path(task["root"])
    mirror = Mirror(root, resolve_store(root, task["tracking_uri"]))

    def say(report: SyncReport) -> None:
        with contextlib.suppress(OSError):  # the parent may have ended, and the records must still be sent
            print(json.dumps(asdict(report)), file=answers, flush=True)

    parent = _Parent(on_stop=lambda: say(mirror.state()))  # the push in progress may never end
    every = task["every"]
    while every is not None and not parent.stop.is_set():
        began = time.monotonic()
        mirror.push(lambda report: say(report) if parent.stop.is_set() else None)  # before the stop nobody reads
        parent.rest(max(every, (time.monotonic() - began) / SHARE))
    while not parent.stop.is_set():
        parent.rest(math.inf)
    say(mirror.push(say))
