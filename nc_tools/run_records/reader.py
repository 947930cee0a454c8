"""Read the runs in an output folder, and mark those whose process has ended as KILLED."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.printable import printable
from nc_tools.run_records import liveness
from nc_tools.run_records.identity import RunIdentity
from nc_tools.run_records.json_files import as_float, read_json
from nc_tools.run_records.metrics_file import curves_of, read_valid_metrics
from nc_tools.run_records.status_file import RunStatus


@dataclass(frozen=True)
class StoredRun:
    """One training run, read from its folder.

    Attributes:
        path: The run's folder.
        identity: What identifies the run.
        status: RUNNING, FINISHED, FAILED or KILLED.
        final: Final values; nan for a value that is defined but not finite.
        error: One line that says why it failed or was killed.
        started_ms: Start, in milliseconds since the epoch.
        ended_ms: End, in milliseconds since the epoch; None while it runs.
        pid: Number of the process that writes or wrote it.
        process: Start of that process; None if unknown.
        host: Machine of that process.
        resumed_bytes: Size to which metrics.jsonl was truncated at each resumption, in order.
    """

    path: Path
    identity: RunIdentity
    status: str
    final: dict[str, float]
    error: str | None
    started_ms: int
    ended_ms: int | None
    pid: int
    process: liveness.ProcessStart | None
    host: str
    resumed_bytes: tuple[int, ...]

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        return read_valid_metrics(self.path / "metrics.jsonl")[0]

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Return the curve of each metric key, [(step, value), ...] sorted by step; nan for a value not finite.

        If a step was logged twice, the later value counts.

        Raises:
            DamagedFileError: If a line of metrics.jsonl is damaged.
        """
        return curves_of(self._lines)


@dataclass(frozen=True)
class Scan:
    """All runs in an output folder.

    Attributes:
        runs: The runs that can be read, oldest first.
        broken: Folder name to reason, for each run that cannot be read.
    """

    runs: list[StoredRun]
    broken: dict[str, str]


def read_run(path: Path | str) -> StoredRun:
    """Read one training run from its folder.

    Raises:
        FileNotFoundError: If run.json or status.json is missing.
        DamagedFileError: If one of the files is damaged or incomplete.
    """
    path = Path(path).resolve()
    identity = RunIdentity.read(path / "run.json")
    status = RunStatus.read(path)
    try:
        final = read_json(path / "final.json")
    except FileNotFoundError:
        final = {}
    try:
        values = {key: as_float(value) for key, value in final.items()}
    except TypeError as error:
        raise DamagedFileError(f"final.json of run {path.name} cannot be used: {error}") from error
    return StoredRun(
        path=path,
        identity=identity,
        status=status.status,
        final=values,
        error=status.error,
        started_ms=status.started_ms,
        ended_ms=status.ended_ms,
        pid=status.pid,
        process=status.process,
        host=status.host,
        resumed_bytes=status.resumed_bytes,
    )


def run_folders(root: Path | str) -> list[Path]:
    """Return the folders of all runs in an output folder, sorted by name, without hidden folders."""
    return sorted(path for path in Path(root).glob("runs/[!.]*") if path.is_dir())


def scan(root: Path | str) -> Scan:
    """Read every run in the output folder ``root``, oldest first.

    Raises:
        FileNotFoundError: If ``root`` does not exist.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"the output folder {root} does not exist: give the folder that was the recipe's --out")
    runs, broken = [], {}
    for path in run_folders(root):
        try:
            runs.append(read_run(path))
        except (OSError, ValueError) as error:
            broken[path.name] = str(error)
    return Scan(sorted(runs, key=lambda run: (run.identity.created_ms, run.path.name)), broken)


def read_runs(root: Path | str, kinds: Sequence[str] = ("final",)) -> list[StoredRun]:
    """Read the runs of the given kinds in an output folder, oldest first; warn about each that cannot be read.

    Args:
        root: Output folder.
        kinds: Any of "final", "holdout", "tuning", "loop".

    Raises:
        FileNotFoundError: If ``root`` does not exist.

    Warns:
        UserWarning: For every folder that cannot be read; ``scan`` returns the same as a value.
    """
    scanned = scan(root)
    for name, reason in scanned.broken.items():
        warnings.warn(
            f"run {printable(name)} cannot be read and is left out: {printable(reason)}", UserWarning, stacklevel=2
        )
    return [run for run in scanned.runs if run.identity.kind in kinds]


def mark_killed(root: Path | str) -> list[StoredRun]:
    """Set the status of every RUNNING run whose process has ended to KILLED; return these runs.

    A process that ends by SIGKILL, for lack of memory or by a power failure cannot write its own status. Runs of other
    machines stay as they are: whether their processes are alive cannot be checked from here.

    Raises:
        FileNotFoundError: If ``root`` does not exist.
    """
    return [killed for run in scan(root).runs if (killed := mark_run_killed(run)) is not None]


def mark_run_killed(run: StoredRun) -> StoredRun | None:
    """Set the status of a RUNNING run to KILLED if its process has ended, and return it; otherwise return None."""
    if run.status != "RUNNING" or run.host != liveness.host() or liveness.is_alive(run.pid, run.process):
        return None
    status = RunStatus.read(run.path)
    if (status.pid, status.status) != (run.pid, "RUNNING"):  # resumed or ended in the meantime
        return None
    ended_ms = _last_written_ms(run)
    error = f"process {run.pid} ended without writing a status (killed, or out of memory)"
    replace(status, status="KILLED", ended_ms=ended_ms, error=error).write(run.path)
    return replace(run, status="KILLED", ended_ms=ended_ms, error=error)


def _last_written_ms(run: StoredRun) -> int:
    """Return the time at which the run last wrote a file, the best estimate of its end."""
    times = [
        int((run.path / name).stat().st_mtime * 1000)
        for name in ("status.json", "metrics.jsonl")
        if (run.path / name).exists()
    ]
    return max(run.started_ms, *times)
