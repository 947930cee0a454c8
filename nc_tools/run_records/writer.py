"""A run's own record on disk: the truth about the run, of which every tracking server shows only a view.

A training process appends one line per epoch to a local file (some 50 microseconds) and never talks to a
server, so a server that is slow, locked or dead can neither hold up a run nor lose one. The record says by
itself how the run ended. What a reader finds under ``<root>/runs/<run_id>/`` is described in
docs/architecture.md.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

from nc_tools.run_records import liveness
from nc_tools.run_records.identity import RunIdentity
from nc_tools.run_records.json_files import as_number, finite_or_null, read_json, truncate_after_step, write_json
from nc_tools.run_records.reader import StoredRun, read_run
from nc_tools.run_records.redact import redact

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
MAX_ERROR = 500


class RunRecord:
    """One run being written: identity, status, curves, final values.

    Used as a context manager it cannot be left RUNNING by anything that Python lives to see: an exception
    makes it FAILED with that error; Ctrl-C, SystemExit and ``Killed`` make it KILLED; leaving the block
    without ``finish`` makes it FAILED as well, since a run whose end nobody declared must not enter a
    comparison. For a process that dies without unwinding (SIGKILL, out of memory), see ``mark_killed``.

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
        """Use ``create`` or ``open``; this neither reads nor writes."""
        self.path = path
        self.identity = identity
        self._resumed_bytes = resumed_bytes
        self._started_ms = _now_ms()
        self._status: Status = "RUNNING"

    @classmethod
    def create(cls, root: Path | str, identity: RunIdentity) -> "RunRecord":
        """Begin a run under ``root``; what a failed or killed run of the same config left there is replaced.

        The folder appears at once with identity and status inside, so that of two processes that begin the
        same run one gets it and the other is refused.

        Raises:
            FileExistsError: If this run is already finished, or a live process is writing it.
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
        write_json(staged / "status.json", record._status_json(None, None))
        try:
            staged.rename(path)
        except OSError as error:
            shutil.rmtree(staged, ignore_errors=True)
            raise FileExistsError(f"the run {path.name} was begun by another process a moment ago") from error
        return record

    @classmethod
    def open(cls, path: Path | str, step: int) -> "RunRecord":
        """Go on with a run from the state after ``step``: RUNNING again, and nothing logged beyond that step.

        Lines beyond ``step`` will be written anew by the resumed run; they and a half-written last line are
        cut, so that no step is there twice. A view that already has them is rebuilt by the next sync.

        Args:
            path: The run's folder.
            step: The last step that the checkpoint covers.

        Raises:
            FileNotFoundError: If there is no run.
            FileExistsError: If it is already finished, or a live process other than this one is writing it.
        """
        path = Path(path).resolve()
        identity = RunIdentity.from_json(read_json(path / "run.json"))
        status = read_json(path / "status.json")
        _refuse_if_finished(path, status)
        _refuse_if_written(path, status)
        kept = truncate_after_step(path / "metrics.jsonl", step)
        (path / "final.json").unlink(missing_ok=True)
        record = cls(path, identity, (*status.get("resumed_bytes", ()), kept))
        record._started_ms = int(status.get("started_ms") or identity.created_ms)
        (path / "figures").mkdir(exist_ok=True)
        record._write_status("RUNNING", None)
        return record

    @property
    def figures(self) -> Path:
        """Folder whose images go to the tracking server at the end."""
        return self.path / "figures"

    @property
    def status(self) -> Status:
        """How the run stands."""
        return self._status

    def log(self, step: int, values: Mapping[str, object]) -> None:
        """Append one step's values and hand them to the operating system; what is not finite becomes null.

        Args:
            step: Epoch or step number.
            values: Key ``split/group/name`` to one number (a float, or a NumPy or torch scalar; reading a GPU
                scalar waits for the GPU, so pass numbers that were copied once per epoch).

        Raises:
            TypeError: If a value is not one number.
            RuntimeError: If the run has ended.
        """
        self._require_running()
        line = {
            "step": int(step),
            "time_ms": _now_ms(),
            "values": {str(key): as_number(str(key), value) for key, value in values.items()},
        }
        # Opened anew each time: 20 microseconds, and nothing stays open in a run that is dropped.
        with (self.path / "metrics.jsonl").open("ab", buffering=0) as file:
            file.write(_one_line(line))

    def finish(self, final: Mapping[str, object]) -> None:
        """Write the final values, then the status FINISHED.

        Args:
            final: Key to one number. A quantity that is not defined (few-shot accuracy where no class is that
                small) has no key; one that is defined and came out non-finite is stored as null.

        Raises:
            TypeError: If a value is not one number.
            RuntimeError: If the run has ended already.
        """
        self._require_running()
        write_json(self.path / "final.json", {str(key): as_number(str(key), value) for key, value in final.items()})
        self._end("FINISHED", None)

    def fail(self, error: BaseException | str) -> None:
        """Write the status FAILED with the first line of ``error``; nothing if the run has ended."""
        text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
        self._end("FAILED", (text.strip().splitlines() or ["unknown error"])[0])

    def kill(self, reason: str = "the run was asked to end") -> None:
        """Write the status KILLED; nothing if the run has ended."""
        self._end("KILLED", reason)

    def read(self) -> StoredRun:
        """Read the record back as a comparison would."""
        return read_run(self.path)

    def __enter__(self) -> "RunRecord":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.fail("the run ended without final values: call finish(...) before leaving the block")
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.kill(type(error).__name__)
        else:
            self.fail(error)

    def _require_running(self) -> None:
        if self._status != "RUNNING":
            raise RuntimeError(f"the run {self.path.name} must be running to take values; it is {self._status}")

    def _end(self, status: Status, error: str | None) -> None:
        if self._status != "RUNNING":
            return
        self._write_status(status, error)

    def _write_status(self, status: Status, error: str | None) -> None:
        write_json(
            self.path / "status.json",
            self._status_json(None if status == "RUNNING" else _now_ms(), error, status),
        )
        self._status = status

    def _status_json(self, ended_ms: int | None, error: str | None, status: Status = "RUNNING") -> dict[str, object]:
        return {
            "status": status,
            "started_ms": self._started_ms,
            "ended_ms": ended_ms,
            "pid": os.getpid(),
            "pid_started": liveness.started_at(os.getpid()),
            "host": liveness.host(),
            "error": redact(error)[:MAX_ERROR] if error else None,
            # Sizes that metrics.jsonl was cut to: a view that had read further must be rebuilt.
            "resumed_bytes": list(self._resumed_bytes),
        }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _one_line(value: object) -> bytes:
    return (json.dumps(finite_or_null(value), allow_nan=False, separators=(",", ":")) + "\n").encode()


def _clear_unfinished(path: Path) -> None:
    """Remove what an unfinished run left at ``path``; refuse where a finished or living one is."""
    if not path.exists():
        return
    try:
        status = read_json(path / "status.json")
    except (OSError, ValueError):
        status = {}
    _refuse_if_finished(path, status)
    _refuse_if_written(path, status)
    # Renamed first: a reader finds the whole old folder or none, and two processes cannot both remove it.
    doomed = path.with_name(f".{path.name}.old.{os.getpid()}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _refuse_if_finished(path: Path, status: Mapping[str, object]) -> None:
    if status.get("status") == "FINISHED":
        raise FileExistsError(f"the run {path.name} is already finished; read it, or remove its folder to repeat it")


def _refuse_if_written(path: Path, status: Mapping[str, object]) -> None:
    pid, started = status.get("pid"), status.get("pid_started")
    if (
        status.get("status") == "RUNNING"
        and status.get("host") == liveness.host()
        and isinstance(pid, int)
        and pid != os.getpid()
        and liveness.is_alive(pid, started if isinstance(started, float) else None)
    ):
        raise FileExistsError(f"the run {path.name} is being written by process {pid}; end it or wait for it")
