"""The low-priority process that copies an output folder to MLflow while runs go on.

It reads its task as one JSON line from standard input, because a command line with credentials would be visible in the
list of processes. It pushes when files have changed, and a last time after a second line on standard input or the end
of its parent. From then on it writes the state of the last push as JSON lines to standard output.
"""

import contextlib
import json
import math
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.store import resolve_store
from nc_tools.tracking.sync_report import SyncReport

# Pushes may take this share of the time. The rest is left to the training on this machine, and to other users of the
# server.
SHARE = 0.1
WATCH_SECONDS = 1.0
NICENESS = 10


def run_sync_process() -> None:
    """Upload what is new at intervals, until the parent process asks for the last upload or ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what MLflow prints must not be read as an answer: it goes to stderr
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    parent, stop = os.getppid(), threading.Event()
    task = json.loads(sys.stdin.readline())
    root = Path(task["root"])
    mirror = Mirror(root, resolve_store(root, task["tracking_uri"]))

    def say(report: SyncReport) -> None:
        with contextlib.suppress(OSError):  # the parent may have ended, and the records must still be sent
            print(json.dumps(asdict(report)), file=answers, flush=True)

    def wait_for_stop() -> None:
        sys.stdin.readline()
        say(mirror.state())  # the push in progress may never end
        stop.set()

    threading.Thread(target=wait_for_stop, daemon=True).start()
    every = task["every"]
    while every is not None and not stop.is_set():
        began = time.monotonic()
        mirror.push(lambda report: say(report) if stop.is_set() else None)  # before the stop nobody reads
        _rest(stop, max(every, (time.monotonic() - began) / SHARE), parent)
    _rest(stop, math.inf, parent)
    say(mirror.push(say))


def _rest(stop: threading.Event, seconds: float, parent: int) -> None:
    """Wait until the time is over, ``stop`` is set, or the parent process has ended."""
    end = time.monotonic() + seconds
    while not stop.is_set() and (left := end - time.monotonic()) > 0:
        stop.wait(min(left, WATCH_SECONDS))
        # If the parent is killed, a forked child of it may keep the standard input open.
        if os.getppid() != parent:
            stop.set()
