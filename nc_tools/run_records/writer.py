"""Write a training run to files in one folder: identity, status, curves and final values.

The record is complete on disk; a tracking server only shows a copy. A training process appends one line per epoch to a
local file (about 50 microseconds) and never waits for a server. The record also says how the run ended. The files under
``<root>/runs/<run_id>/`` are listed in docs/architecture.md.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from nc_tools.run_records import liveness
from nc_tools.run_records.identity import RunIdentity
from nc_tools.run_records.json_files import finite_or_null, metric_value, write_json
from nc_tools.run_records.metrics_file import append_line, truncate_after_step
from nc_tools.run_records.reader import StoredRun, read_run
from nc_tools.run_records.redact import redact
from nc_tools.run_records.status_file import RunStatus, Status
from nc_tools.run_records.system_usage import SystemUsage

MAX_ERROR = 500


class RunRecord:
    """Writes one training run to a folder (its record): identity, status, curves, final values.

    As a context manager it sets the status when the block ends: an exception makes the run FAILED with that error;
    Ctrl-C, SystemExit and ``Killed`` make it KILLED. A block that ends without ``finish`` makes it FAILED too, because
    a run without final values must not enter a comparison. If the process ends without leaving the block (SIGKILL, out
    of memory), the status stays RUNNING until ``mark_killed`` corrects it.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> with RunRecord.create(root, RunIdentity("loop", arm="etf", seed=0)) as run:
        ...     run.log(1, {"train/loss": 0.5})
        ...     run.finish({"test/gen/accuracy": 0.9})
        >>> run.read().status, run.read().curves()
        ('FINISHED', {'train/loss': [(1, 0.5)]})
    """

    def __init__(self, path: Path, identity: RunIdentity, resumed_bytes: tuple[int, ...] = ()) -> None:
        """Store the folder and the identity, without reading or writing; use ``create`` or ``open`` instead."""
        self.path = path
        self.identity = identity
        self._resumed_bytes = resumed_bytes
        self._started_ms = _now_ms()
        self._status: Status = "RUNNING"
        self._usage = SystemUsage()

    @classmethod
    def create(cls, root: Path | str, identity: RunIdentity) -> "RunRecord":
        """Start a new run in the output folder ``root``; it replaces an unfinished run of the same config.

        The folder appears in one step, with identity and status inside. If two processes start the same run, one
        succeeds and the other gets a FileExistsError.

        Raises:
            FileExistsError: If this run is already finished, or another running process of this machine is writing it.
            OSError: If the folder cannot be written.
        """
        path = Path(root).resolve() / "runs" / identity.run_id
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_unfinished(path)
        record = cls(path, identity)
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        shutil.rmtree(staged, ignore_errors=True)
        (staged / "figures").mkdir(parents=True)
        write_json(staged / "run.json", identity.to_json())
        record._status_now("RUNNING", None).write(staged)
        try:
            staged.rename(path)
        except OSError as error:
            shutil.rmtree(staged, ignore_errors=True)
            raise FileExistsError(
                f"the run {path.name} was started by another process at the same time: wait until that process ends"
            ) from error
        return record

    @classmethod
    def open(cls, path: Path | str, step: int) -> "RunRecord":
        """Resume a run after ``step``: set its status to RUNNING and remove the metrics logged beyond that step.

        The resumed run writes those lines again. They and a half-written last line are removed, so that no step occurs
        twice. If MLflow already has them, the next sync creates the run there again.

        Args:
            path: The run's folder.
            step: The last step that the checkpoint covers.

        Raises:
            FileNotFoundError: If there is no run at ``path``.
            FileExistsError: If it is already finished, or another running process of this machine is writing it.
            DamagedFileError: If run.json or status.json is damaged.
        """
        path = Path(path).resolve()
        identity = RunIdentity.read(path / "run.json")
        status = RunStatus.read(path)
        _refuse_if_finished(path, status)
        _refuse_if_being_written(path, status)
        kept = truncate_after_step(path / "metrics.jsonl", step)
        (path / "final.json").unlink(missing_ok=True)
        record = cls(path, identity, (*status.resumed_bytes, kept))
        record._started_ms = status.started_ms
        (path / "figures").mkdir(exist_ok=True)
        record._write_status("RUNNING", None)
        return record

    @property
    def figures(self) -> Path:
        """Path of the folder whose images are uploaded to MLflow at the end of the run."""
        return self.path / "figures"

    @property
    def status(self) -> Status:
        """Status of the run: RUNNING, FINISHED, FAILED or KILLED."""
        return self._status

    def log(self, step: int, values: Mapping[str, object]) -> None:
        """Append the metrics of one step to metrics.jsonl; a value that is not finite becomes null.

        Every few seconds, memory and processor use of this process are added for MLflow (see ``SystemUsage``).

        Args:
            step: Epoch or step number.
            values: Key ``split/group/name`` to one number: a float, or a NumPy or torch scalar. Reading a scalar from
                a GPU waits for the GPU, so copy the numbers once per epoch and pass the copies.

        Raises:
            TypeError: If a value is not one number.
            RuntimeError: If the run has ended.
        """
        self._require_running()
        line: dict[str, object] = {
            "step": int(step),
            "time_ms": _now_ms(),
            "values": {str(key): metric_value(str(key), value) for key, value in values.items()},
        }
        if usage := self._usage.sample():
            line["system"] = usage
        append_line(self.path / "metrics.jsonl", _one_line(line))

    def finish(self, final: Mapping[str, object]) -> None:
        """Write the final values of the run, and set its status to FINISHED.

        Args:
            final: Key to one number. Leave out a quantity that is not defined (few-shot accuracy if no class is that
                small). One that is defined but not finite is stored as null.

        Raises:
            TypeError: If a value is not one number.
            RuntimeError: If the run has ended already.
        """
        self._require_running()
        write_json(self.path / "final.json", {str(key): metric_value(str(key), value) for key, value in final.items()})
        self._end("FINISHED", None)

    def fail(self, error: BaseException | str) -> None:
        """Set the status to FAILED, with the first line of ``error``; do nothing if the run has ended already."""
        text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
        self._end("FAILED", (text.strip().splitlines() or ["unknown error"])[0])

    def kill(self, reason: str = "the run was stopped") -> None:
        """Set the status to KILLED; do nothing if the run has ended already."""
        self._end("KILLED", reason)

    def read(self) -> StoredRun:
        """Return this run as read from its files, such as its status, curves and final values."""
        return read_run(self.path)

    def __enter__(self) -> "RunRecord":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.fail("the run ended without final values: call finish(...) before the block ends")
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.kill(type(error).__name__)
        else:
            self.fail(error)

    def _require_running(self) -> None:
        if self._status != "RUNNING":
            raise RuntimeError(
                f"the run {self.path.name} has ended with the status {self._status}: call log(...) and finish(...) "
                f"only before that"
            )

    def _end(self, status: Status, error: str | None) -> None:
        if self._status != "RUNNING":
            return
        self._write_status(status, error)

    def _write_status(self, status: Status, error: str | None) -> None:
        self._status_now(status, error).write(self.path)
        self._status = status

    def _status_now(self, status: Status, error: str | None) -> RunStatus:
        return RunStatus(
            status=status,
            started_ms=self._started_ms,
            pid=os.getpid(),
            host=liveness.host(),
            process=liveness.start_of(os.getpid()),
            ended_ms=None if status == "RUNNING" else _now_ms(),
            error=redact(error)[:MAX_ERROR] if error else None,
            resumed_bytes=self._resumed_bytes,
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _one_line(value: object) -> bytes:
    return (json.dumps(finite_or_null(value), allow_nan=False, separators=(",", ":")) + "\n").encode()


def _clear_unfinished(path: Path) -> None:
    """Remove an unfinished run at ``path``; raise FileExistsError if it is finished or being written."""
    if not path.exists():
        return
    try:
        status = RunStatus.read(path)
    except (OSError, ValueError):  # damaged, so that nobody can use the run
        status = None
    if status is not None:
        _refuse_if_finished(path, status)
        _refuse_if_being_written(path, status)
    # Renamed first, so that a reader sees the complete folder or none, and two processes cannot both remove it.
    removed = path.with_name(f".{path.name}.old.{os.getpid()}")
    path.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _refuse_if_finished(path: Path, status: RunStatus) -> None:
    if status.status == "FINISHED":
        raise FileExistsError(
            f"the run {path.name} is already finished: use its results, or delete the folder {path} to repeat it"
        )


def _refuse_if_being_written(path: Path, status: RunStatus) -> None:
    if (
        status.status == "RUNNING"
        and status.host == liveness.host()
        and status.pid != os.getpid()
        and liveness.is_alive(status.pid, status.process)
    ):
        raise FileExistsError(
            f"the run {path.name} is being written by process {status.pid}: wait until that process ends, or stop it"
        )
