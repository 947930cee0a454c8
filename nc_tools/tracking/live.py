"""Keeping MLflow up to date while runs go on, from a process of its own."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from nc_tools.tracking.sync_report import SyncReport

if TYPE_CHECKING:
    from nc_tools.tracking.mlflow_sync import MlflowSync

# How long the last push may go without any progress before it is given up: more than one request's time limit.
PATIENCE_SECONDS = 45.0
SOURCE = "import sys; sys.path.append(sys.argv[1]); from nc_tools.tracking.sync_process import run_sync_process; run_sync_process()"
# MLflow's own limits let one dead server hold a call for some four minutes. What the user has set is kept.
LIMITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


class LiveSync:
    """Mirrors the records into MLflow every few seconds while the block runs, and once more at its end.

    The work is done by a process of its own, at low priority: training never waits for it, MLflow is not
    imported here, no environment variable or MLflow setting of this process changes, and if this process is
    killed the other notices, marks the dead runs as KILLED, sends them and ends. Between pushes it rests until
    that work comes to at most 2 % of the machine's processor time.

    A failure is remembered and told once, at the end, with the command that sends the rest. It is never raised.

    Args:
        sync: Which records go where.
        every: Seconds between pushes, at least; None pushes once, at the end.

    Attributes:
        report: How the last push went; None before the first.
    """

    def __init__(self, sync: "MlflowSync", every: float | None = 5.0) -> None:
        self.sync = sync
        self.every = every
        self.report: SyncReport | None = None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._owner = 0
        self._heard = 0.0

    def __enter__(self) -> "LiveSync":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        advice = self.stop().advice(self.sync.root)
        if advice is not None:
            print(f"nc_tools: {advice}", file=sys.stderr)

    def start(self) -> None:
        """Start the sending process; what keeps it from starting is reported by ``stop``."""
        task = {
            "root": str(self.sync.root),
            "tracking_uri": self.sync.store.uri,
            "experiment": self.sync.experiment,
            "every": self.every,
        }
        self._owner = os.getpid()
        try:
            self.sync.root.mkdir(parents=True, exist_ok=True)
            self._process = _start(self.sync.root)
            self._tell(json.dumps(task))
        except OSError as error:
            self.report = SyncReport(0, 0, f"the sending process did not start ({error})")
            return
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._heard = time.monotonic()
        self._reader.start()

    def stop(self) -> SyncReport:
        """Have everything sent that is still missing, end the process, and return how it went."""
        if self._process is None or self._owner != os.getpid():
            return self.report or SyncReport(0, 0, None)
        self.report = None
        self._tell("stop")
        try:
            self._wait(self._process)
        finally:  # also when Ctrl-C ends the wait: nothing that we started stays behind
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                _close(pipe)
            self._process = None
        self.report = self.report or SyncReport(0, 0, "the sending process ended or hung before it was done")
        return self.report

    def _wait(self, process: "subprocess.Popen[str]") -> None:
        assert self._reader is not None  # noqa: S101
        self._heard = time.monotonic()
        while self._reader.is_alive() and time.monotonic() - self._heard < PATIENCE_SECONDS:
            self._reader.join(0.02 if process.poll() is None else 1.0)

    def _tell(self, line: str) -> None:
        assert self._process is not None  # noqa: S101
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:  # it is gone; the reader has noticed
            return

    def _read(self) -> None:
        assert self._process is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        for line in self._process.stdout:
            self._heard = time.monotonic()
            values = json.loads(line)
            if values:  # an empty answer only says that there is progress
                self.report = SyncReport(**values)


def _start(root: Path) -> "subprocess.Popen[str]":
    package = Path(__file__).resolve().parents[2]
    environment = {**LIMITS, **os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        # -P: a file mlflow.py in the user's working directory must not be taken for MLflow.
        [sys.executable, "-P", "-c", SOURCE, str(package)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environment,
        # A fresh store notes a folder for MLflow's own "Default" experiment, relative to where it is opened.
        cwd=root,
        # Out of reach of a Ctrl-C in the terminal: that ends the training, and then the last push is wanted.
        start_new_session=True,
    )


def _close(pipe: IO[str] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        return
