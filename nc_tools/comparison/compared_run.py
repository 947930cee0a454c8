"""One run of a comparison, read from its folder whether it finished, failed, is still running or is damaged.

A run without a result keeps its status and the reason, so that the report can list it: without its failed runs
a comparison would look better than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nc_tools.comparison.image_values import ImageValues
from nc_tools.run_records import recover_run, run_folders
from nc_tools.run_records.json_files import as_float, read_json_or_problem

SCORED_KINDS = ("final", "loop")
# Squares and sums of larger values could overflow. Only training that diverges gives such values.
LARGEST_VALUE = 1e150


@dataclass(frozen=True)
class RecallByClass:
    """Recall, training count and test count of each class, all in the order of ``classes``.

    ``coverage`` says how often the prediction sets of each method hold the class; nan where there is no test image.
    """

    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    recall: tuple[float, ...]
    coverage: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison; a run made by another program needs only the first four fields and ``final``.

    Attributes:
        arm: The arm's name.
        seed: Runs of two arms with the same seed are a pair.
        draw: Number of the run among those of its arm and seed, which differ in their random frame; 0 if there is only
            one.
        status: ``"FINISHED"``, ``"FAILED"``, ``"KILLED"``, ``"RUNNING"``, ``"PLANNED"`` or ``"UNKNOWN"``.
        final: Final values by metric key; a value that is not finite, or larger than 1e150, becomes nan.
        curves: Values over training by metric key, as (step, value).
        per_class: Recall by class, if recorded.
        predictions: The safetensors file of test logits, if there is one.
        config: The run's configuration, nested.
        data: Name, fingerprint and class counts of its data.
        kind: ``"final"`` and ``"loop"`` runs are compared; ``"holdout"`` gives curves; ``"tuning"`` is only listed.
        run_id: Name of the run's folder; in a comparison of several output folders with a name of the folder before it.
        error: The error that ended it, or "".
        hardware: The machine in words.
        versions: Library versions.
        git_commit: The commit it ran from.
        created_ms: When it was started, in milliseconds since 1970.
        notes: What is missing or unreadable in its record.
        frame_seed: Seed of the head's random frame; None for a head without one, "unknown" if the record does not say.
        about: What its head and its loss are, in a sentence each, by name.
        images: The primary metric by test image, for a run without a file of predictions.
        folder: The run's folder.
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
    frame_seed: int | Literal["unknown"] | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    images: ImageValues | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Replace final values that are not finite, or too large for a variance, by nan."""
        kept = {key: value if abs(value) <= LARGEST_VALUE else math.nan for key, value in self.final.items()}
        object.__setattr__(self, "final", kept)

    @property
    def finished(self) -> bool:
        """Whether the run finished and has values to compare."""
        return self.status == "FINISHED" and bool(self.final)

    @property
    def learning_rate(self) -> str:
        """The recorded learning rate as text; "" if the record has none."""
        optim = self.config.get("optim")
        rate = optim.get("lr") if isinstance(optim, Mapping) else None
        return f"{rate:g}" if isinstance(rate, int | float) else ""

    @property
    def why_not(self) -> str:
        """The reason why the run has no result, in a few words; an empty string if it has one."""
        if self.finished:
            return ""
        if self.status == "FINISHED":
            return "finished, but its final values are missing"
        last = max((curve[-1][0] for curve in self.curves.values() if curve), default=None)
        reached = "" if last is None else f" after step {last}"
        return f"{self.status}{reached}" + (f": {self.error}" if self.error else "")


def read_compared_runs(root: str | Path) -> list[ComparedRun]:
    """Read every run folder in ``root/runs``; return the runs in the order in which they started.

    Args:
        root: The output folder.

    Raises:
        FileNotFoundError: If the folder does not exist, or holds no folder ``runs``.
    """
    if not (Path(root) / "runs").is_dir():
        raise FileNotFoundError(
            f"no runs to compare: {str(root)!r} has no folder runs/. "
            "Give the folder that was the recipe's --out, or run a recipe first"
        )
    return sorted(map(read_compared_run, run_folders(root)), key=lambda run: (run.created_ms, run.run_id))


def read_compared_run(folder: str | Path) -> ComparedRun:
    """Read the folder of one run, complete or not; ``notes`` of the result names files that could not be read."""
    folder = Path(folder)
    recovered = recover_run(folder)
    identity = recovered.identity
    per_class, problems = _read_per_class(folder / "per_class.json")
    predictions = folder / "predictions.safetensors"
    return ComparedRun(
        arm=identity["arm"],
        seed=identity["seed"],
        draw=identity["draw"],
        status=recovered.status,
        final=recovered.final,
        curves={key: tuple(points) for key, points in recovered.curves.items()},
        per_class=per_class,
        predictions=predictions if predictions.exists() or predictions.is_symlink() else None,
        config=identity["config"],
        data=identity["data"],
        kind=identity["kind"],
        run_id=folder.name,
        error=" ".join(recovered.error.split()),
        hardware=identity["hardware"],
        versions={name: str(version) for name, version in identity["versions"].items()},
        git_commit=identity["git_commit"],
        created_ms=identity["created_ms"],
        notes=(*recovered.problems, *problems),
        frame_seed=identity["frame_seed"],
        about=identity["about"],
        folder=folder,
    )


def _read_per_class(path: Path) -> tuple[RecallByClass | None, list[str]]:
    """Return the recall of each class from per_class.json, or None and the reason if the file is damaged."""
    if not path.exists() and not path.is_symlink():
        return None, []
    content, problem = read_json_or_problem(path)
    if problem:
        return None, [problem]
    try:
        classes = tuple(str(name) for name in content["classes"])
        trained, tested = (tuple(int(count) for count in content[key]) for key in ("train_counts", "test_counts"))
        recall = tuple(as_float(value) for value in content["recall"])
        coverage = {
            str(method): tuple(as_float(value) for value in values)
            for method, values in dict(content.get("coverage") or {}).items()
        }
    except (KeyError, TypeError, ValueError):
        return None, ["per_class.json is incomplete"]
    if {len(part) for part in (trained, tested, recall, *coverage.values())} != {len(classes)}:
        return None, ["per_class.json has lists of different lengths"]
    return RecallByClass(classes, trained, tested, recall, coverage), []
