"""Read the plan of a comparison from the files experiment.json and tuning.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.plan_files import read_plan, read_tuning
from nc_tools.comparison.prediction_entries import DEFAULT_PRIMARY


@dataclass(frozen=True)
class Experiment:
    """The plan of a comparison: its arms in order, its primary metric, its protocol and its hyperparameter search.

    Attributes:
        name: Title of the comparison.
        question: The question it asks, in a sentence.
        baseline: The arm that the others are paired against; "" means the first.
        arms: All arms in order, also those that have no run.
        primary: Key of the one metric that the verdicts are about.
        suite: Identifies the runs that belong together.
        protocol: Statements and values to print. ``references`` (arm -> arm) names a second family of tests, ``seeds``
            the planned seeds.
        tuning: Trials, chosen values, grid and notes of the hyperparameter search.
        runs: The runs that belong to it. A folder can also hold runs of other comparisons.
        smoke: Whether the runs only check that everything works.
        unequal: For a comparison of several folders, sentences about what differs, or may differ, between them.
    """

    name: str = ""
    question: str = ""
    baseline: str = ""
    arms: tuple[str, ...] = ()
    primary: str = DEFAULT_PRIMARY
    suite: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[Mapping[str, Any], ...] = ()
    smoke: bool = False
    unequal: tuple[str, ...] = ()

    @property
    def withheld(self) -> str:
        """Why no verdict is given, or ""."""
        return "this is a smoke run, and its numbers mean nothing" if self.smoke else ""

    @property
    def margin(self) -> float | None:
        """The margin of non-inferiority and equivalence that the protocol fixes, in the unit of the primary metric."""
        margin = self.protocol.get("margin")
        return float(margin) if isinstance(margin, int | float) and 0 < margin < float("inf") else None

    @property
    def tuned_each_seed(self) -> bool:
        """Whether every seed has its own hold-out and was tuned on it, so that settings differ by seed."""
        return self.protocol.get("tune_each_seed") is True

    @property
    def test_per_train(self) -> float:
        """Test images per training image, if every seed has its own split; 0 if all seeds share one test set."""
        ratio = self.protocol.get("test_per_train")
        return float(ratio) if isinstance(ratio, int | float) and 0 < ratio < float("inf") else 0.0

    @property
    def references(self) -> dict[str, str]:
        """Reference arm of each arm that is also tested against an arm other than the baseline."""
        references = self.protocol.get("references")
        if not isinstance(references, Mapping):
            return {}
        return {str(arm): str(reference) for arm, reference in references.items()}

    @property
    def trials(self) -> list[Mapping[str, Any]]:
        """The recorded trials of the hyperparameter search."""
        return [trial for trial in self.tuning.get("trials") or () if isinstance(trial, Mapping)]


def read_experiment(root: str | Path) -> Experiment:
    """Read experiment.json and tuning.json of an output folder; a missing field keeps its default.

    Args:
        root: The output folder.

    Raises:
        DamagedFileError: If experiment.json is damaged.
    """
    root = Path(root)
    plan = read_plan(root)
    protocol, references = plan.get("protocol"), plan.get("references")
    rules = dict(protocol) if isinstance(protocol, Mapping) else {"statement": protocol} if protocol else {}
    if isinstance(references, Mapping):
        rules.setdefault("references", references)
    return Experiment(
        name=_text(plan.get("name")) or root.resolve().name,
        question=_text(plan.get("question")),
        baseline=_text(plan.get("baseline")),
        arms=tuple(str(arm) for arm in plan.get("arms") or ()),
        primary=_text(plan.get("primary")) or DEFAULT_PRIMARY,
        suite=_text(plan.get("suite")),
        protocol=rules,
        tuning=read_tuning(root),
        runs=tuple(run for run in plan.get("runs") or () if isinstance(run, Mapping)),
        smoke=plan.get("smoke") is True,
    )


def runs_of_experiment(runs: Sequence[ComparedRun], experiment: Experiment) -> list[ComparedRun]:
    """Return the runs that experiment.json lists; a run without a folder gets the status that the list gives.

    Without a list, all runs belong to the experiment.
    """
    if not experiment.runs:
        return list(runs)
    by_name = {run.run_id: run for run in runs}
    listed = []
    for entry in experiment.runs:
        missing = ComparedRun(
            arm=_text(entry.get("arm")),
            seed=-1 if entry.get("seed") is None else entry["seed"],
            draw=entry.get("draw") or 0,
            status=_text(entry.get("status")) or "PLANNED",
            run_id=_text(entry.get("run_id")),
            error=_text(entry.get("error")),
        )
        listed.append(by_name.get(missing.run_id, missing))
    return listed


def _text(value: object) -> str:
    return "" if value is None else str(value)
