"""Reads the records of an output folder, as they are: half written, failed, still running or complete.

Nothing is dropped in silence: a run without a result stays in the list with its status and the reason, so
that a comparison cannot look better by forgetting what went wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nc_tools.compare.measures import PRIMARY

SCORED_KINDS = ("final", "loop")


@dataclass(frozen=True)
class PerClass:
    """Recall of each class beside how many images it was trained on; all in the order of ``classes``."""

    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    recall: tuple[float, ...]


@dataclass(frozen=True)
class ComparedRun:
    """One run as the comparison sees it; runs from elsewhere need only the first four fields and ``final``.

    Attributes:
        arm: The arm's name.
        seed: What pairs it with the other arms' runs.
        draw: Which draw of the arm's random frame; 0 where there is one.
        status: ``"FINISHED"``, or why not: ``"FAILED"``, ``"KILLED"``, ``"RUNNING"``, ``"UNKNOWN"``.
        final: Last values by metric key; nan where the run gave a number that is not finite.
        curves: Values over epochs by metric key, as (step, value).
        per_class: Recall by class, where recorded.
        predictions: The safetensors file of test logits, where there is one.
        config: The run's configuration, nested.
        data: Name, fingerprint and class counts of its data.
        kind: ``"final"`` and ``"loop"`` runs are compared; ``"holdout"`` gives curves; ``"tuning"`` is only
        listed. run_id: Name of the run's folder.
        error: What ended it, or "".
        hardware: The machine in words.
        versions: Library versions.
        git_commit: The commit it ran from.
        created_ms: When it was started.
        notes: What was missing or unreadable in its record.
    """

    arm: str
    seed: int
    draw: int
    status: str
    final: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    per_class: PerClass | None = None
    predictions: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "final"
    run_id: str = ""
    error: str = ""
    hardware: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    git_commit: str = ""
    created_ms: int = 0
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run ended well and left values to compare."""
        return self.status == "FINISHED" and bool(self.final)

    @property
    def why_not(self) -> str:
        """Why the run has no place in the table, in a few words; "" where it has one."""
        if self.finished:
            return ""
        if self.status == "FINISHED":
            return "finished, but its final values are missing"
        last = max((curve[-1][0] for curve in self.curves.values() if curve), default=None)
        reached = "" if last is None else f" after step {last}"
        return f"{self.status}{reached}" + (f": {self.error}" if self.error else "")


@dataclass(frozen=True)
class Experiment:
    """What the comparison was meant to be: its arms in order, its protocol, and how the rates were chosen.

    Attributes:
        name: Title of the comparison.
        question: What it asks, in a sentence.
        baseline: The arm that the others are paired against; "" leaves the choice to the caller.
        arms: All arms in their order, also those that have no run.
        primary: Key of the one metric that decides.
        suite: Identifies the runs that belong together.
        protocol: Statements and values to print; ``references`` (arm -> arm) names a second family of tests,
            ``seeds`` what was planned.
        tuning: Trials, chosen values, grid and notes of the search.
        runs: The runs that belong to it, where it names them; a folder may hold those of other comparisons too.
    """

    name: str = ""
    question: str = ""
    baseline: str = ""
    arms: tuple[str, ...] = ()
    primary: str = PRIMARY
    suite: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[Mapping[str, Any], ...] = ()

    @property
    def references(self) -> dict[str, str]:
        """Which arm each arm is also tested against, beside the baseline."""
        found = self.protocol.get("references")
        return {str(arm): str(other) for arm, other in found.items()} if isinstance(found, Mapping) else {}


def read_experiment(root: Path) -> Experiment:
    """Read experiment.json and tuning.json of an output folder; what is missing keeps its default.

    Args:
        root: The output folder.
    """
    found, tuning = _read_object(root / "experiment.json"), _read_object(root / "tuning.json")
    protocol = found.get("protocol")
    named = found.get("references")
    rules = dict(protocol) if isinstance(protocol, Mapping) else {"statement": protocol} if protocol else {}
    if isinstance(named, Mapping):
        rules.setdefault("references", named)
    return Experiment(
        name=_text(found.get("name")) or root.resolve().name,
        question=_text(found.get("question")),
        baseline=_text(found.get("baseline")),
        arms=tuple(str(arm) for arm in found.get("arms") or ()),
        primary=_text(found.get("primary")) or PRIMARY,
        suite=_text(found.get("suite")),
        protocol=rules,
        tuning=tuning,
        runs=tuple(run for run in found.get("runs") or () if isinstance(run, Mapping)),
    )


def of_experiment(runs: Sequence[ComparedRun], experiment: Experiment) -> list[ComparedRun]:
    """Keep the runs that belong to an experiment, and list those of it that left no folder.

    An output folder may hold the runs of earlier settings too. Without a list of its runs an experiment takes all.
    """
    if not experiment.runs:
        return list(runs)
    by_name = {run.run_id: run for run in runs}
    found = []
    for planned in experiment.runs:
        missing = ComparedRun(
            arm=_text(planned.get("arm")),
            seed=int(planned.get("seed", -1)),
            draw=int(planned.get("draw", 0)),
            status=_text(planned.get("status")) or "PLANNED",
            run_id=_text(planned.get("run_id")),
            error=_text(planned.get("error")),
        )
        found.append(by_name.get(missing.run_id, missing))
    return found


def read_runs(root: Path) -> list[ComparedRun]:
    """Read every run folder under ``root/runs``, in the order in which they were started.

    Args:
        root: The output folder.

    Raises:
        FileNotFoundError: If there is no such folder, or no ``runs`` in it.
    """
    folder = root / "runs"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"an output folder must hold runs/, got {str(root)!r}: name the folder given to --out, "
            "or run a recipe first"
        )
    # A hidden folder is a run that is just being begun or cleared away.
    runs = [read_run(path) for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."]
    return sorted(runs, key=lambda run: (run.created_ms, run.run_id))


def read_run(folder: Path) -> ComparedRun:
    """Read one run folder, whatever state it is in; notes name what could not be read."""
    notes: list[str] = []
    identity = _read_object(folder / "run.json", notes)
    status = _read_object(folder / "status.json", notes)
    # Only a run that says it ended well owes these files.
    done = status.get("status") == "FINISHED"
    final = _read_object(folder / "final.json", notes if done else None)
    predictions = folder / "predictions.safetensors"
    arm, seed, draw, kind = _identity(identity, folder.name)
    return ComparedRun(
        arm=arm,
        seed=seed,
        draw=draw,
        status=_text(status.get("status")) or "UNKNOWN",
        final={str(key): _number(value) for key, value in final.items() if _is_number(value)},
        curves=_read_curves(folder / "metrics.jsonl", notes),
        per_class=_read_per_class(folder / "per_class.json", notes),
        predictions=predictions if predictions.is_file() else None,
        config=_mapping(identity.get("config")),
        data=_mapping(identity.get("data")),
        kind=kind,
        run_id=folder.name,
        error=" ".join(_text(status.get("error")).split()),
        hardware=_text(identity.get("hardware")),
        versions={str(name): str(value) for name, value in _mapping(identity.get("versions")).items()},
        git_commit=_text(identity.get("git_commit")),
        created_ms=int(identity.get("created_ms") or 0),
        notes=tuple(notes),
    )


def _identity(identity: Mapping[str, Any], name: str) -> tuple[str, int, int, str]:
    """Who the run is; where run.json is unreadable, what its folder's name says."""
    parts = name.rsplit("-", 4)
    named = len(parts) == 5 and parts[1][1:].isdigit() and parts[2][1:].isdigit()
    arm, kind = (parts[0], parts[3]) if named else (name, "")
    seed, draw = (int(parts[1][1:]), int(parts[2][1:])) if named else (-1, 0)
    return (
        _text(identity.get("arm")) or arm,
        int(identity.get("seed", seed)),
        int(identity.get("draw", draw)),
        _text(identity.get("kind")) or kind or "final",
    )


def _read_object(path: Path, notes: list[str] | None = None) -> dict[str, Any]:
    """The JSON object in a file, or an empty one with a note of why."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({type(error).__name__})"
    else:
        if isinstance(found, dict):
            return found
        problem = "holds no JSON object"
    if notes is not None:
        notes.append(f"{path.name} {problem}")
    return {}


def _read_curves(path: Path, notes: list[str]) -> dict[str, tuple[tuple[int, float], ...]]:
    """Curves by key; a later line of the same step replaces an earlier one, as after a resume."""
    curves: dict[str, dict[int, float]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            step, values = int(entry["step"]), dict(entry["values"])
        except (ValueError, KeyError, TypeError):
            # The last line of a run that was killed while writing is expected to be cut.
            if line.strip() and number < len(lines):
                notes.append(f"metrics.jsonl line {number} cannot be read")
            continue
        for key, value in values.items():
            if _is_number(value):
                curves.setdefault(str(key), {})[step] = _number(value)
    return {key: tuple(sorted(points.items())) for key, points in curves.items()}


def _read_per_class(path: Path, notes: list[str]) -> PerClass | None:
    if not path.is_file():
        return None
    found = _read_object(path, notes)
    try:
        classes = tuple(str(name) for name in found["classes"])
        trained, tested = (tuple(int(count) for count in found[key]) for key in ("train_counts", "test_counts"))
        recall = tuple(_number(value) for value in found["recall"])
    except (KeyError, TypeError, ValueError):
        notes.append("per_class.json is incomplete")
        return None
    if not len(classes) == len(trained) == len(tested) == len(recall):
        notes.append("per_class.json has lists of different lengths")
        return None
    return PerClass(classes, trained, tested, recall)


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _number(value: float | None) -> float:
    """The records write null for what is not finite."""
    return math.nan if value is None else float(value)
