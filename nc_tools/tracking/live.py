"""Copy runs to MLflow while they go on, from a separate process."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from nc_tools.tracking.store import Store
from nc_tools.tracking.sync_report import SyncReport

# The last push is given up after this time without progress; it is longer than the time limit of one request.
PATIENCE_SECONDS = 45.0
SOURCE = "import sys; sys.path.append(sys.argv[1]); import nc_tools.tracking.sync_process as p; p.run_sync_process()"
# With MLflow's own limits a call to a dead server takes about four minutes. Values that the user has set are kept.
LIMITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


class SyncSettings(Protocol):
    """The attributes of an ``MlflowSync`` that ``LiveSync`` reads.

    Attributes:
        root: Output folder with the records.
        store: MLflow store to which they are copied.
        experiment: Name of the experiment for all records; None for each record's own.
    """

    root: Path
    store: Store
    experiment: str | None


class LiveSync:
    """Copies runs to MLflow every few seconds while the ``with`` block runs, and once more at its end.

    A separate process at low priority does the work: training does not wait for it, and this process neither imports
    MLflow nor changes an environment variable. If this process is killed, the other one marks its runs as KILLED, sends
    them and ends. Between pushes it pauses, so that it uses at most 2 % of the machine's processor time.

    A failure raises no exception. It is printed once, at the end, with the command that sends the rest.

    Args:
        sync: The records and the store.
        every: Least number of seconds between pushes; None pushes once, at the end.

    Attributes:
        report: Result of the last push; None before the first.
    """

    def __init__(self, sync: SyncSettings, every: float | None = 5.0) -> None:
        self.sync = sync
        self.every = every
        self.report: SyncReport | None = None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._owner = 0
        self._last_answer = 0.0

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
        """Start the process that uploads runs; if that fails, ``stop`` reports the reason."""
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
            self._send(json.dumps(task))
        except OSError as error:
            self.report = SyncReport(0, 0, f"the process that uploads runs to MLflow could not be started ({error})")
            return
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._last_answer = time.monotonic()
        self._reader.start()

    def stop(self) -> SyncReport:
        """Upload everything that is still missing in MLflow, end the process, and return the result."""
        if self._process is None or self._owner != os.getpid():
            return self.report or SyncReport(0, 0, None)
        self.report = None
        self._send("stop")
        try:
            self._wait(self._process)
        finally:  # also when Ctrl-C ends the wait: the process must not stay behind
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                _close(pipe)
            self._process = None
        self.report = self.report or SyncReport(
            0, 0, "the process that uploads runs to MLflow ended or stopped responding"
        )
        return self.report

    def _wait(self, process: "subprocess.Popen[str]") -> None:
        assert self._reader is not None  # noqa: S101
        self._last_answer = time.monotonic()
        while self._reader.is_alive() and time.monotonic() - self._last_answer < PATIENCE_SECONDS:
            self._reader.join(0.02 if process.poll() is None else 1.0)

    def _send(self, line: str) -> None:
        assert self._process is not None  # noqa: S101
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:  # the process has ended; the reader notices
            return

    def _read(self) -> None:
        assert self._process is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        for line in self._process.stdout:
            self._last_answer = time.monotonic()
            values = json.loads(line)
            if values:  # an empty answer only shows that there is progress
                self.report = SyncReport(**values)


def _start(root: Path) -> "subprocess.Popen[str]":
    package = Path(__file__).resolve().parents[2]
    environment = {**LIMITS, **os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        # -P: a file mlflow.py in the user's working directory must not be imported as MLflow.
        [sys.executable, "-P", "-c", SOURCE, str(package)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environment,
        # A new store records a folder for MLflow's own experiment "Default", relative to the working directory.
        cwd=root,
        # Ctrl-C in the terminal must end the training only: the last push still has to run.
        start_new_session=True,
    )


def _close(pipe: IO[str] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        return
