"""The runs of a comparison, as their records are: half written, failed, still running or complete.

Nothing is dropped in silence: a run without a result stays in the list with its status and the reason, so
that a comparison cannot look better by forgetting what went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nc_tools.comparison.metric_info import PRIMARY
from nc_tools.run_records.json_files import as_float, read_json_or_problem
from nc_tools.run_records.reader import recover_run, run_folders
from nc_tools.run_records.renames import current_tuning

SCORED_KINDS = ("final", "loop")


@dataclass(frozen=True)
class RecallByClass:
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
        status: ``"FINISHED"``, or why not: ``"FAILED"``, ``"KILLED"``, ``"RUNNING"``, ``"PLANNED"``, ``"UNKNOWN"``.
        final: Last values by metric key; nan where the run gave a number that is not finite.
        curves: Values over epochs by metric key, as (step, value).
        per_class: Recall by class, where recorded.
        predictions: The safetensors file of test logits, where there is one.
        config: The run's configuration, nested.
        data: Name, fingerprint and class counts of its data.
        kind: ``"final"`` and ``"loop"`` runs are compared; ``"holdout"`` gives curves; ``"tuning"`` is only listed.
        run_id: Name of the run's folder.
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
    per_class: RecallByClass | None = None
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
        baseline: The arm that the others are paired against; "" means the first, unless the caller names one.
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
    found, _ = read_json_or_problem(root / "experiment.json")
    tuning, _ = read_json_or_problem(root / "tuning.json")
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
        tuning=current_tuning(tuning),
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


def read_compared_runs(root: Path) -> list[ComparedRun]:
    """Read every run folder under ``root/runs``, in the order in which they were started.

    Args:
        root: The output folder.

    Raises:
        FileNotFoundError: If there is no such folder, or no ``runs`` in it.
    """
    if not (root / "runs").is_dir():
        raise FileNotFoundError(
            f"an output folder must hold runs/, got {str(root)!r}: name the folder given to --out, "
            "or run a recipe first"
        )
    return sorted(map(read_compared_run, run_folders(root)), key=lambda run: (run.created_ms, run.run_id))


def read_compared_run(folder: Path) -> ComparedRun:
    """Read one run folder, whatever state it is in; notes name what could not be read."""
    found = recover_run(folder)
    identity = found.identity
    per_class, problems = _read_per_class(folder / "per_class.json")
    predictions = folder / "predictions.safetensors"
    return ComparedRun(
        arm=identity["arm"],
        seed=identity["seed"],
        draw=identity["draw"],
        status=found.status,
        final=found.final,
        curves={key: tuple(points) for key, points in found.curves.items()},
        per_class=per_class,
        predictions=predictions if predictions.is_file() else None,
        config=identity["config"],
        data=identity["data"],
        kind=identity["kind"],
        run_id=folder.name,
        error=" ".join(found.error.split()),
        hardware=identity["hardware"],
        versions={name: str(version) for name, version in identity["versions"].items()},
        git_commit=identity["git_commit"],
        created_ms=identity["created_ms"],
        notes=(*found.problems, *problems),
    )


def _read_per_class(path: Path) -> tuple[RecallByClass | None, list[str]]:
    """Recall by class, where it was recorded, and why there is none though it was."""
    if not path.exists():
        return None, []
    found, problem = read_json_or_problem(path)
    if problem:
        return None, [problem]
    try:
        classes = tuple(str(name) for name in found["classes"])
        trained, tested = (tuple(int(count) for count in found[key]) for key in ("train_counts", "test_counts"))
        recall = tuple(as_float(value) for value in found["recall"])
    except (KeyError, TypeError, ValueError):
        return None, ["per_class.json is incomplete"]
    if not len(classes) == len(trained) == len(tested) == len(recall):
        return None, ["per_class.json has lists of different lengths"]
    return RecallByClass(classes, trained, tested, recall), []


def _text(value: object) -> str:
    return "" if value is None else str(value)
