"""The low-priority process that copies runs to MLflow during training.

It reads its task as one JSON line from standard input, because a command line with credentials would be visible in the
list of processes. It pushes at intervals, and a last time after a second line on standard input or the end of its
parent. After each push it writes the report as one JSON line to standard output, and after each record an empty object.
"""

import gc
import importlib
import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO

from nc_tools.tracking.store import resolve_store
from nc_tools.tracking.sync_once import Synchronizer
from nc_tools.tracking.sync_report import SyncReport

# Sending may use at most 2 % of the machine's processor time, opening the store included.
SHARE = 0.02
# For MLflow these are optional, as in its smaller distribution. They take half of the time of its import.
NOT_NEEDED = ("pandas", "numpy")
WATCH_SECONDS = 1.0
NICENESS = 10


def run_sync_process() -> None:
    """Upload new values at intervals until the parent process asks for the end."""
    answers = _take_over_output()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    parent = os.getppid()
    task = json.loads(sys.stdin.readline())
    stop = threading.Event()
    threading.Thread(target=_wait_for_stop, args=(stop,), daemon=True).start()
    root = Path(task["root"])
    try:
        synchronizer = Synchronizer(root, resolve_store(root, task["tracking_uri"]), task["experiment"])
    except ValueError as error:
        _answer(answers, SyncReport(0, 0, str(error)))
        return
    every = task["every"]
    if every is None:
        _rest(stop, float("inf"), parent)
    gc.disable()  # garbage collection takes a third of the time of opening, and finds nothing to free
    _import_mlflow("mlflow" if synchronizer.store.is_server else "mlflow.store.tracking.sqlalchemy_store")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    debt = time.process_time()
    while not stop.is_set():
        began = time.process_time()
        _answer(answers, synchronizer.push(lambda: _say(answers, {}), cpu_seconds=every * cores * SHARE))
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        used, debt = debt + time.process_time() - began, 0.0
        _rest(stop, max(every, used / cores / SHARE), parent)
    _answer(answers, synchronizer.push(lambda: _say(answers, {})))


def _import_mlflow(module: str) -> None:
    """Import MLflow without its optional packages, to save time; if that fails, import nothing."""
    for name in NOT_NEEDED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    try:
        importlib.import_module(module)
    except Exception:  # noqa: BLE001 - whatever the reason, the import is tried again with them
        for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
            del sys.modules[name]
    finally:  # later imports must find them
        for name in NOT_NEEDED:
            if sys.modules.get(name) is None:
                del sys.modules[name]


def _rest(stop: threading.Event, seconds: float, parent: int) -> None:
    """Wait until the time is over, ``stop`` is set, or the parent process has ended."""
    end = time.monotonic() + seconds
    while not stop.is_set() and (left := end - time.monotonic()) > 0:
        stop.wait(min(left, WATCH_SECONDS))
        # If the parent is killed, a forked child of it may keep the standard input open.
        if os.getppid() != parent:
            stop.set()


def _wait_for_stop(stop: threading.Event) -> None:
    sys.stdin.readline()
    stop.set()


def _take_over_output() -> IO[str]:
    """Return standard output as a file for answers, and redirect what MLflow prints to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(answers: IO[str], report: SyncReport) -> None:
    _say(answers, asdict(report))


def _say(answers: IO[str], value: object) -> None:
    try:
        answers.write(json.dumps(value) + "\n")
        answers.flush()
    except OSError:  # the parent has ended; the records must still be sent
        pass
