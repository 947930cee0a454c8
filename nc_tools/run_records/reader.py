"""Read the records of runs under an output folder, also damaged ones, and mark runs whose process has died."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nc_tools.run_records import liveness
from nc_tools.run_records.identity import RunIdentity
from nc_tools.run_records.json_files import (
    as_float,
    read_json,
    read_json_or_problem,
    write_json,
)
from nc_tools.run_records.metrics_file import read_metrics, read_valid_metrics

# The folder name that RunIdentity.run_id builds; the name of the arm may contain hyphens.
RUN_ID = re.compile(r"(?P<arm>.+)-s(?P<seed>\d+)-d(?P<draw>\d+)-(?P<kind>\w+)-\w+", re.ASCII)


@dataclass(frozen=True)
class StoredRun:
    """One run, read from its folder.

    Attributes:
        path: The run's folder.
        identity: What identifies the run.
        status: RUNNING, FINISHED, FAILED or KILLED.
        final: Final values; nan for a value that is defined but not finite.
        error: One line that says why it failed or was killed.
        started_ms: Start, in milliseconds since the epoch.
        ended_ms: End, in milliseconds since the epoch; None while it runs.
        pid: Number of the process that writes or wrote it.
        pid_started: Start of that process, in seconds since the epoch; None if unknown.
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
    pid_started: float | None
    host: str
    resumed_bytes: tuple[int, ...]

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        return read_valid_metrics(self.path / "metrics.jsonl")[0]

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Return key -> [(step, value), ...], ordered by step; nan for a value that was not finite.

        If a step was logged twice, the later value counts.

        Raises:
            ValueError: If a line of metrics.jsonl is damaged.
        """
        return _curves(self._lines)


@dataclass(frozen=True)
class RecoveredRun:
    """What can be read from a run's folder, whatever its state, and what is missing or damaged.

    Attributes:
        identity: Fields of ``RunIdentity`` by name: "arm", "seed", "draw", "kind", "config", "data", "versions",
            "hardware", "git_commit" and "created_ms". If run.json does not hold arm, seed, draw or kind, they are taken
            from the folder's name; the other fields are then empty.
        status: RUNNING, FINISHED, FAILED or KILLED; UNKNOWN if it cannot be read.
        error: Why it failed or was killed; "" if no reason is recorded.
        final: Final values; nan for a value that is defined but not finite.
        curves: As of ``StoredRun.curves``, from the valid lines.
        problems: What is missing or cannot be read. Missing final values are a problem only if the run is FINISHED.
    """

    identity: dict[str, Any]
    status: str
    error: str
    final: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Scan:
    """All runs under an output folder.

    Attributes:
        runs: The runs that can be read, oldest first.
        broken: Folder name to reason, for each run that cannot be read.
    """

    runs: list[StoredRun]
    broken: dict[str, str]


def read_run(path: Path | str) -> StoredRun:
    """Read one run's folder.

    Raises:
        FileNotFoundError: If run.json or status.json is missing.
        ValueError: If one of the files is damaged or incomplete.
    """
    path = Path(path).resolve()
    try:
        identity = RunIdentity.from_json(read_json(path / "run.json"))
        status = read_json(path / "status.json")
        final = read_json(path / "final.json") if (path / "final.json").exists() else {}
        return StoredRun(
            path=path,
            identity=identity,
            status=str(status["status"]),
            final={key: as_float(value) for key, value in final.items()},
            error=status.get("error"),
            started_ms=int(status["started_ms"]),
            ended_ms=status.get("ended_ms"),
            pid=int(status["pid"]),
            pid_started=status.get("pid_started"),
            host=str(status["host"]),
            resumed_bytes=tuple(status.get("resumed_bytes", ())),
        )
    except (KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"the record of run {path.name} is incomplete: {error}") from error


def recover_run(path: Path | str) -> RecoveredRun:
    """Read whatever can be read from one run's folder, damaged or not; raise no error.

    A comparison must name every run: an arm whose damaged runs were left out could look better than it is. The fields
    that only a sync needs (process, host, times) may be missing.
    """
    path = Path(path)
    run_json, no_run_json = read_json_or_problem(path / "run.json")
    status, no_status = read_json_or_problem(path / "status.json")
    final, no_final = read_json_or_problem(path / "final.json")
    identity, unusable = _recovered_identity(run_json, path.name)
    numbers, not_numbers = _recovered_numbers(final)
    problems = [
        no_run_json,
        *unusable,
        no_status,
        no_final if status.get("status") == "FINISHED" else "",
        *not_numbers,
    ]
    lines: list[dict[str, Any]] = []
    try:
        metrics = read_metrics(path / "metrics.jsonl")
    except OSError as error:
        problems.append(f"metrics.jsonl cannot be read ({type(error).__name__})")
    else:
        lines = metrics.lines
        problems += [f"metrics.jsonl line {number} cannot be read" for number in metrics.damaged]
    return RecoveredRun(
        identity=identity,
        status=str(status.get("status") or "UNKNOWN"),
        error=str(status.get("error") or ""),
        final=numbers,
        curves=_curves(lines),
        problems=tuple(problem for problem in problems if problem),
    )


def run_folders(root: Path | str) -> list[Path]:
    """Return the run folders under an output folder, sorted by name; hidden ones are being created or removed."""
    return sorted(path for path in Path(root).glob("runs/[!.]*") if path.is_dir())


def scan(root: Path | str) -> Scan:
    """Read every run under ``root`` (an output folder), oldest first.

    Raises:
        FileNotFoundError: If ``root`` does not exist.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"the output folder {root} does not exist: give the folder that was --out of the runs")
    runs, broken = [], {}
    for path in run_folders(root):
        try:
            runs.append(read_run(path))
        except (OSError, ValueError) as error:
            broken[path.name] = str(error)
    return Scan(sorted(runs, key=lambda run: (run.identity.created_ms, run.path.name)), broken)


def read_runs(root: Path | str, kinds: Sequence[str] = ("final",)) -> list[StoredRun]:
    """Read the runs of the given kinds, oldest first; warn about each folder that cannot be read.

    Args:
        root: Output folder.
        kinds: Any of "final", "holdout", "tuning", "loop".

    Raises:
        FileNotFoundError: If ``root`` does not exist.

    Warns:
        UserWarning: For every folder that cannot be read; ``scan`` returns the same as a value.
    """
    runs = scan(root)
    for name, reason in runs.broken.items():
        warnings.warn(f"run {name} cannot be read and is left out: {reason}", UserWarning, stacklevel=2)
    return [run for run in runs.runs if run.identity.kind in kinds]


def mark_killed(root: Path | str) -> list[StoredRun]:
    """Mark as KILLED every run whose status is RUNNING although its process has ended; return these runs.

    A process that ends by SIGKILL, for lack of memory or by a power failure cannot write its own status. Runs of other
    machines stay as they are: whether their processes are alive cannot be checked from here.

    Raises:
        FileNotFoundError: If ``root`` does not exist.
    """
    return [killed for run in scan(root).runs if (killed := mark_run_killed(run)) is not None]


def mark_run_killed(run: StoredRun) -> StoredRun | None:
    """Mark one run as KILLED if its process has ended, and return the run as it is then; otherwise return None."""
    if run.status != "RUNNING" or run.host != liveness.host() or liveness.is_alive(run.pid, run.pid_started):
        return None
    status = read_json(run.path / "status.json")
    if (status.get("pid"), status.get("status")) != (run.pid, "RUNNING"):  # resumed or ended in the meantime
        return None
    ended_ms = _last_written_ms(run)
    error = f"process {run.pid} ended without writing a status (killed, or out of memory)"
    write_json(run.path / "status.json", {**status, "status": "KILLED", "ended_ms": ended_ms, "error": error})
    return replace(run, status="KILLED", ended_ms=ended_ms, error=error)


def _last_written_ms(run: StoredRun) -> int:
    """Return when the run last wrote anything: the best estimate of its end."""
    times = [
        int((run.path / name).stat().st_mtime * 1000)
        for name in ("status.json", "metrics.jsonl")
        if (run.path / name).exists()
    ]
    return max(run.started_ms, *times)


def _curves(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, dict[int, float]] = {}
    for line in lines:
        for key, value in line["values"].items():
            curves.setdefault(key, {})[int(line["step"])] = as_float(value)
    return {key: sorted(points.items()) for key, points in curves.items()}


def _recovered_identity(run_json: Mapping[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the valid fields of run.json, completed by the folder's name and empty defaults, and the problems."""
    match = RUN_ID.fullmatch(name)
    defaults: dict[str, Any] = {"arm": name, "seed": -1, "draw": 0, "kind": "final"}
    if match is not None:
        defaults = {"arm": match["arm"], "seed": int(match["seed"]), "draw": int(match["draw"]), "kind": match["kind"]}
    defaults |= {"config": {}, "data": {}, "versions": {}, "hardware": "", "git_commit": "", "created_ms": 0}
    present = {key: value for key, value in run_json.items() if key in defaults and value not in (None, "")}
    valid = {key: value for key, value in present.items() if isinstance(value, type(defaults[key]))}
    return {**defaults, **valid}, [f"run.json holds no usable {key!r}" for key in present if key not in valid]


def _recovered_numbers(values: Mapping[str, object]) -> tuple[dict[str, float], list[str]]:
    numbers: dict[str, float] = {}
    problems = []
    for key, value in values.items():
        try:
            numbers[key] = as_float(value)
        except (TypeError, OverflowError):
            problems.append(f"final.json holds no number for {key!r}")
    return numbers, problems
