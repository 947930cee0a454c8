"""Copy an output folder to MLflow from a separate process, while runs go on or afterwards."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from nc_tools._support.printable import printable
from nc_tools.tracking.store import resolve_store
from nc_tools.tracking.sync_report import OPENING, SyncReport

# The last push is given up after this time without progress; it is longer than the time limit of one request.
PATIENCE_SECONDS = 45.0
OPENING_SECONDS = 300.0
SOURCE = "import sys; sys.path.append(sys.argv[1]); import nc_tools.tracking.sync_process as p; p.run_sync_process()"
PACKAGE = Path(__file__).resolve().parents[2]
# With MLflow's own limits a call to a dead server takes about four minutes. Values that the user has set are kept.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "PGCONNECT_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MlflowSync:
    """Copies the runs of an output folder, and their comparison, to an MLflow store: a server or a database.

    In a ``with`` block it copies every few seconds what is new, and the rest when the block ends. ``push`` copies once.
    A separate process at low priority does the work: training does not wait for it, and this process neither imports
    MLflow nor changes an environment variable. If this process is killed, the other one marks its runs as KILLED, sends
    them and ends. What MLflow lacks in the end is printed, with the command that sends it; no error is raised.

    Args:
        root: Output folder with the records.
        tracking_uri: Address of the store. The default is MLFLOW_TRACKING_URI, or else a SQLite file in the folder.
        experiment: Name of the experiment for all records. The default is each record's own.
        every: Least number of seconds between two copies.

    Attributes:
        report: Result of the last copy; None before the first.

    Raises:
        ValueError: If the address is a folder or a database in memory.
    """

    def __init__(
        self, root: Path | str, tracking_uri: str | None = None, experiment: str | None = None, *, every: float = 5.0
    ) -> None:
        self.root = Path(root).resolve()
        self.store = resolve_store(self.root, tracking_uri)
        self.experiment = experiment
        self.every = every
        self.report: SyncReport | None = None
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._last_answer = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def start(self, *, once: bool = False) -> None:
        """Start the process that copies every few seconds, or ``once`` when it is stopped."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._owner = os.getpid()
        try:
            self._process = subprocess.Popen(
                # -P: a file mlflow.py in the user's working directory must not be imported as MLflow.
                [sys.executable, "-P", "-c", SOURCE, str(PACKAGE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**SETTINGS, **os.environ, "PYTHONWARNINGS": "ignore"},
                # A new store records a folder for MLflow's experiment "Default", relative to the working directory.
                cwd=self.root,
                # Ctrl-C in the terminal must end the training only: the last push still has to run.
                start_new_session=True,
            )
        except OSError as error:
            self.report = SyncReport(0, 0, f"the process that uploads runs to MLflow could not be started ({error})")
            return
        # Not in the command line, which other users can see: the address may hold a password.
        task = {"root": str(self.root), "tracking_uri": self.store.uri, "experiment": self.experiment}
        _write(self._process, json.dumps({**task, "every": None if once else self.every}))

    def push(self) -> SyncReport:
        """Copy once what MLflow lacks, wait for the end, and return the result.

        Raises:
            FileNotFoundError: If the output folder does not exist.
        """
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"the output folder {self.root} does not exist: give the folder that was the recipe's --out"
            )
        self.start(once=True)
        return self.stop()

    def stop(self) -> SyncReport:
        """Copy what is still missing in MLflow, end the process, and return the result."""
        process = self._process
        if process is None or self._owner != os.getpid():  # in a forked process it is not ours
            return self.report or SyncReport(0, 0, None)
        self._process = None
        self.report = SyncReport(0, 0, "the process that uploads runs to MLflow ended or stopped responding")
        self._last_answer = time.monotonic()
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        _write(process, "stop")
        try:
            while reader.is_alive() and time.monotonic() - self._last_answer < self._patience():
                reader.join(0.02 if process.poll() is None else 1.0)
        finally:  # also when Ctrl-C ends the wait: the process must not stay behind
            process.kill()
            reader.join()
            with contextlib.suppress(BrokenPipeError), process:  # closes its pipes and waits
                pass
        return self.report

    def finish(self) -> None:
        """Stop, and print what MLflow may lack."""
        self.stop()
        if (advice := self.advice()) is not None:
            print(f"nc_tools: {printable(advice)}", file=sys.stderr)

    def advice(self) -> str | None:
        """Return what MLflow may lack, why, and the command that uploads it; None if nothing is missing."""
        report = self.report
        if report is None or report.error is None:
            return None
        command = ["nc-tools", "sync", str(self.root)]
        if resolve_store(self.root, None).address != self.store.address:
            command += ["--tracking-uri", self.store.address]
        missing = f"{report.pending} run{'s' * (report.pending != 1)} may be missing in MLflow: " * (report.pending > 0)
        login = " (with user name and password in the address)" * (self.store.address != self.store.uri)
        return (
            f"{missing}{report.error}. All runs are saved on disk; upload them later with: {shlex.join(command)}{login}"
        )

    def _patience(self) -> float:
        return OPENING_SECONDS if self.report is not None and self.report.error == OPENING else PATIENCE_SECONDS

    def _read(self, process: "subprocess.Popen[str]") -> None:
        for line in process.stdout or ():
            self._last_answer = time.monotonic()
            self.report = SyncReport(**json.loads(line))


def _write(process: "subprocess.Popen[str]", line: str) -> None:
    with contextlib.suppress(OSError):  # the process has ended, which the end of its answers shows
        print(line, file=process.stdin, flush=True)
