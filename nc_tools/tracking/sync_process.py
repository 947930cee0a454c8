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


def run_sync_process() -> None:
    """Upload what is new at intervals, until the parent process asks for the last upload or ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what MLflow prints must not be read as an answer: it goes to stderr
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    parent, stop, wake = os.getppid(), threading.Event(), threading.Event()
    task = json.loads(sys.stdin.readline())
    root = Path(task["root"])
    mirror = Mirror(root, resolve_store(root, task["tracking_uri"]))

    def say(report: SyncReport) -> None:
        with contextlib.suppress(OSError):  # the parent may have ended, and the records must still be sent
            print(json.dumps(asdict(report)), file=answers, flush=True)

    def listen() -> None:
        while sys.stdin.readline().strip() == PUSH:
            wake.set()
        say(mirror.state())  # the push in progress may never end
        stop.set()
        wake.set()

    def rest(seconds: float) -> None:
        """Wait until the time is over, the parent process wants something, or it has ended."""
        end = time.monotonic() + seconds
        while not (wake.is_set() or stop.is_set()) and (left := end - time.monotonic()) > 0:
            wake.wait(min(left, WATCH_SECONDS))
            # If the parent is killed, a forked child of it may keep the standard input open.
            if os.getppid() != parent:
                stop.set()

    threading.Thread(target=listen, daemon=True).start()
    every = task["every"]
    if every is not None:
        mirror.prepare()
    while every is not None and not stop.is_set():
        began = time.monotonic()
        wake.clear()
        mirror.push(lambda report: say(report) if stop.is_set() else None)  # before the stop nobody reads
        rest(max(every, (time.monotonic() - began) / SHARE))
    while not stop.is_set():
        wake.clear()
        rest(math.inf)
    say(mirror.push(say))
