"""Reading records back: what a comparison and a sync see of the runs under an output folder."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nc_tools.tracking import process
from nc_tools.tracking.files import read_json, read_lines, write_json
from nc_tools.tracking.identity import RunIdentity


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
        """Return key -> [(step, value), ...] in the order logged; nan where a value was not finite."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for line in self._lines:
            for key, value in line["values"].items():
                curves.setdefault(key, []).append((int(line["step"]), math.nan if value is None else float(value)))
        return curves


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
            final={key: math.nan if value is None else float(value) for key, value in final.items()},
            error=status.get("error"),
            started_ms=int(status["started_ms"]),
            ended_ms=status.get("ended_ms"),
            pid=int(status["pid"]),
            pid_started=status.get("pid_started"),
            host=str(status["host"]),
            resumed_bytes=tuple(status.get("resumed_bytes", ())),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"the record of run {path.name} is incomplete: {error}") from error


def scan(root: Path | str) -> Scan:
    """Read every run under ``root`` (an output folder), oldest first.

    Raises:
        FileNotFoundError: If ``root`` is not there.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"the output folder must exist, and {root} does not; give the --out of the runs")
    runs, broken = [], {}
    for path in sorted(root.glob("runs/[!.]*")):
        if not path.is_dir():
            continue
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


def mend(root: Path | str) -> list[StoredRun]:
    """Mark as KILLED every run that says RUNNING though its process, on this machine, is dead; return those.

    A process that is killed outright (SIGKILL, out of memory, power) cannot say so itself. Runs of other
    machines are left alone: nothing here can tell whether they live.

    Raises:
        FileNotFoundError: If ``root`` is not there.
    """
    return [mended for run in scan(root).runs if (mended := mend_run(run)) is not None]


def mend_run(run: StoredRun) -> StoredRun | None:
    """Mark one dead run as KILLED and return what it now is; None if there is nothing to mend."""
    if run.status != "RUNNING" or run.host != process.host() or process.is_alive(run.pid, run.pid_started):
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
