"""Copy an output folder to MLflow from a separate process, while runs go on or afterwards."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from nc_tools._support.printable import printable
from nc_tools.tracking.store import resolve_store
from nc_tools.tracking.sync_report import SyncReport

# The last push is given up after this time without progress. It is longer than the time limit of one request to a
# server, and than MLflow takes to make or upgrade a SQLite file.
PATIENCE_SECONDS = 45.0
SQLITE_PATIENCE_SECONDS = 300.0
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
        every: Shortest time between two copies, in seconds.

    Attributes:
        report: Result of the last copy; None before the first.

    Raises:
        ValueError: If the address is a folder, a database in memory, or a SQLite file whose path contains %, ? or #.
    """

    def __init__(self, root: Path | str, tracking_uri: str | None = None, *, every: float = 5.0) -> None:
        self._given = Path(root)
        self.root = self._given.resolve()
        self.store = resolve_store(self.root, tracking_uri)
        self.every = every
        self.report: SyncReport | None = None
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

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
        task = {"root": str(self.root), "tracking_uri": self.store.uri, "every": None if once else self.every}
        _write(self._process, json.dumps(task))

    def push_soon(self) -> None:
        """Copy what is new now and not at the next interval, without waiting for it; in a ``with`` block."""
        if self._process is not None:
            _write(self._process, "push")

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
        patience = PATIENCE_SECONDS if self.store.database is None else SQLITE_PATIENCE_SECONDS
        _write(process, "stop")
        silence = threading.Timer(patience, process.kill)
        try:
            silence.start()
            for line in process.stdout or ():
                silence.cancel()
                self.report = SyncReport(**json.loads(line))
                silence = threading.Timer(patience, process.kill)
                silence.start()
        finally:  # also when Ctrl-C ends the wait: the process must not stay behind
            silence.cancel()
            process.kill()
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
        missing = f"{report.pending} run{'s' * (report.pending != 1)} may be missing in MLflow: " * (report.pending > 0)
        return f"{missing}{report.error}. All runs are saved on disk; upload them later with: {self._command('sync')}"

    def links(self) -> list[str]:
        """Return lines that say how to see the runs in MLflow: the addresses of a server, or a command."""
        if not self.store.is_server:
            return [f"MLflow: {self._command('ui')}"]
        pages = self.report.pages if self.report is not None else ()
        return [f"{what}: {self.store.address.rstrip('/')}/{page}" for what, page in pages]

    def _command(self, name: str) -> str:
        """Return a command of nc-tools for this folder and store."""
        here = self._given.resolve() == self.root  # unless the working directory has changed
        command = ["nc-tools", name, str(self._given if here else self.root)]
        if resolve_store(self.root, None).address == self.store.address:
            return shlex.join(command)
        login = " (with user name and password in the address)" * (self.store.address != self.store.uri)
        return shlex.join([*command, "--tracking-uri", self.store.address]) + login


def _write(process: "subprocess.Popen[str]", line: str) -> None:
    with contextlib.suppress(OSError):  # the process has ended, which the end of its answers shows
        print(line, file=process.stdin, flush=True)
