"""The process that mirrors records into MLflow beside the training, at low priority.

It reads its task as one JSON line from standard input (an address with credentials must not be seen in the
list of processes), pushes now and then, and pushes a last time when it is told to stop or its parent dies.
Each push is answered by one JSON line on standard output, and each record within it by an empty one.
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

# Sending may take at most 2 % of the machine's processor time; what opening the store took is rested off too.
SHARE = 0.02
# MLflow takes these for optional, as its smaller distribution does: half of its import goes into them.
NOT_NEEDED = ("pandas", "numpy")
WATCH_SECONDS = 1.0
NICENESS = 10


def run_sync_process() -> None:
    """Run until told to stop."""
    answers = _take_over_output()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    parent = os.getppid()
    task = json.loads(sys.stdin.readline())
    stop = threading.Event()
    threading.Thread(target=_wait_for_stop, args=(stop,), daemon=True).start()
    root = Path(task["root"])
    try:
        pusher = Synchronizer(root, resolve_store(root, task["tracking_uri"]), task["experiment"])
    except ValueError as error:
        _answer(answers, SyncReport(0, 0, str(error)))
        return
    every = task["every"]
    if every is None:
        _rest(stop, float("inf"), parent)
    gc.disable()  # a third of what opening takes goes into collecting objects that all stay
    _import_mlflow("mlflow" if pusher.store.is_server else "mlflow.store.tracking.sqlalchemy_store")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    debt = time.process_time()
    while not stop.is_set():
        began = time.process_time()
        _answer(answers, pusher.push(lambda: _say(answers, {}), cpu_seconds=every * cores * SHARE))
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        used, debt = debt + time.process_time() - began, 0.0
        _rest(stop, max(every, used / cores / SHARE), parent)
    _answer(answers, pusher.push(lambda: _say(answers, {})))


def _import_mlflow(module: str) -> None:
    """Import MLflow without the packages that it can do without, or with them if it says otherwise."""
    for name in NOT_NEEDED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    try:
        importlib.import_module(module)
    except Exception:  # noqa: BLE001 - whatever it makes of their absence, it is asked again with them
        for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
            del sys.modules[name]
    finally:  # what is asked for later is there
        for name in NOT_NEEDED:
            if sys.modules.get(name) is None:
                del sys.modules[name]


def _rest(stop: threading.Event, seconds: float, parent: int) -> None:
    """Wait; no longer than until told to stop or until the parent is gone."""
    end = time.monotonic() + seconds
    while not stop.is_set() and (left := end - time.monotonic()) > 0:
        stop.wait(min(left, WATCH_SECONDS))
        # A forked child of the parent may keep our input open when the parent is killed.
        if os.getppid() != parent:
            stop.set()


def _wait_for_stop(stop: threading.Event) -> None:
    sys.stdin.readline()
    stop.set()


def _take_over_output() -> IO[str]:
    """Keep standard output for answers: MLflow prints to it as well."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(answers: IO[str], report: SyncReport) -> None:
    _say(answers, asdict(report))


def _say(answers: IO[str], value: object) -> None:
    try:
        answers.write(json.dumps(value) + "\n")
        answers.flush()
    except OSError:  # the parent is gone; the records still want to be sent
        pass
