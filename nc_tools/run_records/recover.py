"""Read as much as possible from a run's folder that may be damaged."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nc_tools.run_records.identity import FIELD_HINTS
from nc_tools.run_records.json_files import as_float, read_json_or_problem
from nc_tools.run_records.metrics_file import curves_of, read_metrics
from nc_tools.type_check import matches

# The folder name that RunIdentity.run_id builds; the name of the arm may contain hyphens.
RUN_ID = re.compile(r"(?P<arm>.+)-s(?P<seed>\d+)-d(?P<draw>\d+)-(?P<kind>\w+)-\w+", re.ASCII)

# What a comparison reads of a run's data.
_FACTS: dict[str, Any] = {
    "name": str,
    "fingerprint": str,
    "num_classes": int,
    "class_counts": list[int],
    "classes": list[str],
    "outliers": str,
}


@dataclass(frozen=True)
class RecoveredRun:
    """The readable contents of a run's folder, and a list of what is missing or damaged.

    Attributes:
        identity: Fields of ``RunIdentity`` by name: "arm", "seed", "draw", "kind", "config", "data", "versions",
            "hardware", "git_commit", "created_ms", "about" and "frame_seed" ("unknown" in records of version 0.1). If
            run.json does not hold arm, seed, draw or kind, they are taken from the folder's name; the other fields
            are then empty.
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


def recover_run(path: Path | str) -> RecoveredRun:
    """Read as much as possible from one run's folder, damaged or not; raise no error.

    A comparison must name every run: an arm whose damaged runs were left out could look better than it is. Fields that
    only a sync with MLflow needs (process, host, times) are not read.
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
    except (OSError, ValueError) as error:
        problems.append(f"metrics.jsonl cannot be read ({type(error).__name__})")
    else:
        lines = metrics.lines
        problems += [f"metrics.jsonl line {number} cannot be read" for number in metrics.damaged]
    return RecoveredRun(
        identity=identity,
        status=str(status.get("status") or "UNKNOWN"),
        error=str(status.get("error") or ""),
        final=numbers,
        curves=curves_of(lines),
        problems=tuple(problem for problem in problems if problem),
    )


def _recovered_identity(run_json: Mapping[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the identity from the valid fields of run.json, with defaults for the others, and the problems."""
    match = RUN_ID.fullmatch(name)
    defaults: dict[str, Any] = {"arm": name, "seed": -1, "draw": 0, "kind": "final"}
    if match is not None:
        defaults = {"arm": match["arm"], "seed": int(match["seed"]), "draw": int(match["draw"]), "kind": match["kind"]}
    defaults |= {
        "config": {},
        "data": {},
        "versions": {},
        "hardware": "",
        "git_commit": "",
        "created_ms": 0,
        "about": {},
    }
    present = {key: value for key, value in run_json.items() if key in defaults and value not in (None, "")}
    valid = {key: value for key, value in present.items() if matches(value, FIELD_HINTS[key])}
    frame_seed = run_json.get("frame_seed", "unknown")
    valid["frame_seed"] = frame_seed if frame_seed is None or type(frame_seed) is int else "unknown"
    unusable = [key for key in present if key not in valid]
    if "data" in valid:
        facts = valid["data"]
        wrong = [key for key, hint in _FACTS.items() if not matches(facts.get(key), hint | None)]
        valid["data"] = {key: value for key, value in facts.items() if key not in wrong}
        unusable += [f"data.{key}" for key in wrong]
    return {**defaults, **valid}, [f"run.json holds no usable {key!r}" for key in unusable]


def _recovered_numbers(values: Mapping[str, object]) -> tuple[dict[str, float], list[str]]:
    numbers: dict[str, float] = {}
    problems = []
    for key, value in values.items():
        try:
            numbers[key] = as_float(value)
        except TypeError:
            problems.append(f"final.json holds no number for {key!r}")
    return numbers, problems
