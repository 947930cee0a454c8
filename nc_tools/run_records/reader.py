"""Reading records back: what a comparison and a sync see of the runs under an output folder."""

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
    read_lines,
    read_metrics,
    write_json,
)

# A folder's name as RunIdentity.run_id makes it; the arm may have hyphens of its own.
RUN_ID = re.compile(r"(?P<arm>.+)-s(?P<seed>\d+)-d(?P<draw>\d+)-(?P<kind>\w+)-\w+", re.ASCII)


@dataclass(frozen=True)
class StoredRun:
    """One run as its folder tells it.

    Attributes:
        path: The run's folder.
        identity: What was known before the first step.
        status: RUNNING, FINISHED, FAILED or KILLED.
        final: Final values; nan where a value is defined but was not finite.
        error: One line on why it failed or was killed.
        started_ms: Milliseconds since the epoch.
        ended_ms: The same for the end, None while it runs.
        pid: Process that writes or wrote it.
        host: Machine of that process.
        resumed_bytes: Sizes to which the metrics file was cut when the run was resumed, in order.
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
        return read_lines(self.path / "metrics.jsonl")[0]

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Return key -> [(step, value), ...] in the order of the steps; nan where a value was not finite.

        Of a step that was logged twice, as after a resume, the later value is taken.

        Raises:
            ValueError: If a line of metrics.jsonl is damaged.
        """
        return _curves(self._lines)


@dataclass(frozen=True)
class RecoveredRun:
    """What can be read of a run's folder, whatever state that is in, and what cannot.

    Attributes:
        identity: Fields of ``RunIdentity`` by name, "arm", "seed", "draw", "kind", "config", "data", "versions",
            "hardware", "git_commit" and "created_ms"; who the run is comes from its folder's name where run.json
            does not say, and the rest is empty there.
        status: RUNNING, FINISHED, FAILED or KILLED; UNKNOWN where the run does not say.
        error: Why it failed or was killed; "" where there is nothing to say.
        final: Final values; nan where a value is defined but was not finite.
        curves: As of ``StoredRun.curves``, from the lines that can be read.
        problems: What is missing or cannot be read; final values are owed by a FINISHED run only.
    """

    identity: dict[str, Any]
    status: str
    error: str
    final: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Scan:
    """All runs under a folder, and by name those that cannot be read, each with the reason."""

    runs: list[StoredRun]
    broken: dict[str, str]


def read_run(path: Path | str) -> StoredRun:
    """Read one run's folder.

    Raises:
        FileNotFoundError: If run.json or status.json is missing.
        ValueError: If one of the files does not hold what it must.
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
    """Read of one run's folder what can be read, where ``read_run`` would refuse it; nothing is raised.

    For a reader that must name every run, as a comparison must: one that left its runs with a damaged record out
    would look better for it. The fields that only a sync needs (process, host, times) may be missing.
    """
    path = Path(path)
    about, lost = read_json_or_problem(path / "run.json")
    status, lost_status = read_json_or_problem(path / "status.json")
    final, lost_final = read_json_or_problem(path / "final.json")
    identity, wrong = _salvaged_identity(about, path.name)
    numbers, no_numbers = _salvaged_numbers(final)
    problems = [lost, *wrong, lost_status, lost_final if status.get("status") == "FINISHED" else "", *no_numbers]
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
    """List the run folders under an output folder by name; a hidden one is just being begun or cleared away."""
    return sorted(path for path in Path(root).glob("runs/[!.]*") if path.is_dir())


def scan(root: Path | str) -> Scan:
    """Read every run under ``root`` (an output folder), oldest first.

    Raises:
        FileNotFoundError: If ``root`` is not there.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"the output folder must exist, and {root} does not; give the --out of the runs")
    runs, broken = [], {}
    for path in run_folders(root):
        try:
            runs.append(read_run(path))
        except (OSError, ValueError) as error:
            broken[path.name] = str(error)
    return Scan(sorted(runs, key=lambda run: (run.identity.created_ms, run.path.name)), broken)


def read_runs(root: Path | str, kinds: Sequence[str] = ("final",)) -> list[StoredRun]:
    """Read the runs of the given kinds; a folder that cannot be read is named in a warning.

    Args:
        root: Output folder.
        kinds: Any of "final", "holdout", "tuning", "loop".

    Raises:
        FileNotFoundError: If ``root`` is not there.

    Warns:
        UserWarning: For every run whose folder is broken; ``scan`` gives the same as a value.
    """
    found = scan(root)
    for name, reason in found.broken.items():
        warnings.warn(f"run {name} cannot be read and is left out: {reason}", UserWarning, stacklevel=2)
    return [run for run in found.runs if run.identity.kind in kinds]


def mark_killed(root: Path | str) -> list[StoredRun]:
    """Mark as KILLED every run that says RUNNING though its process, on this machine, is dead; return those.

    A process that is killed outright (SIGKILL, out of memory, power) cannot say so itself. Runs of other
    machines are left alone: nothing here can tell whether they live.

    Raises:
        FileNotFoundError: If ``root`` is not there.
    """
    return [mended for run in scan(root).runs if (mended := mark_run_killed(run)) is not None]


def mark_run_killed(run: StoredRun) -> StoredRun | None:
    """Mark one dead run as KILLED and return what it now is; None if there is nothing to mend."""
    if run.status != "RUNNING" or run.host != liveness.host() or liveness.is_alive(run.pid, run.pid_started):
        return None
    status = read_json(run.path / "status.json")
    if (status.get("pid"), status.get("status")) != (run.pid, "RUNNING"):  # resumed or ended in the meantime
        return None
    ended_ms = _last_sign_of_life_ms(run)
    error = f"process {run.pid} died without a word (killed, or out of memory)"
    write_json(run.path / "status.json", {**status, "status": "KILLED", "ended_ms": ended_ms, "error": error})
    return replace(run, status="KILLED", ended_ms=ended_ms, error=error)


def _last_sign_of_life_ms(run: StoredRun) -> int:
    """When the run last wrote anything: the best that is known of its end."""
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


def _salvaged_identity(about: Mapping[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of run.json that are what they should be, the others as known otherwise, and problems."""
    named = RUN_ID.fullmatch(name)
    known: dict[str, Any] = {"arm": name, "seed": -1, "draw": 0, "kind": "final"}
    if named is not None:
        known = {"arm": named["arm"], "seed": int(named["seed"]), "draw": int(named["draw"]), "kind": named["kind"]}
    known |= {"config": {}, "data": {}, "versions": {}, "hardware": "", "git_commit": "", "created_ms": 0}
    said = {key: value for key, value in about.items() if key in known and value not in (None, "")}
    told = {key: value for key, value in said.items() if isinstance(value, type(known[key]))}
    wrong = [f"run.json holds no usable {key!r}" for key in said if key not in told]
    return {**known, **told}, wrong


def _salvaged_numbers(values: Mapping[str, object]) -> tuple[dict[str, float], list[str]]:
    numbers: dict[str, float] = {}
    wrong = []
    for key, value in values.items():
        try:
            numbers[key] = as_float(value)
        except (TypeError, OverflowError):
            wrong.append(f"final.json holds no number for {key!r}")
    return numbers, wrong
