"""What MLflow shows of an output folder: its runs, and their comparison."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from nc_tools.run_records.json_files import read_json_or_problem
from nc_tools.run_records.metrics_file import read_valid_metrics
from nc_tools.run_records.reader import StoredRun, run_folders
from nc_tools.tracking import mlflow_fields as fields

RUN_FILES = (
    *("run.json", "status.json", "metrics.jsonl", "final.json", "per_class.json", "suspects.csv", "layers.csv"),
    *("predictions.safetensors", "weights.safetensors"),
)
COMPARISON = "comparison"
REPORT = "report"
REPORT_FILES = (
    *("comparison.html", "comparison.md", "comparison.csv", "comparison.json", "comparison.tex"),
    "over_nc1.svg",
)


@dataclass(frozen=True)
class RunItem:
    """A training run or a comparison, as one run of MLflow.

    Attributes:
        name: Name in its output folder, by which it is found in MLflow.
        experiment: Name of its experiment.
        attempt: Creation time of the record, which changes if the run is started again.
        status: RUNNING, FINISHED, FAILED or KILLED.
        started_ms: Start, in milliseconds since the epoch.
        ended_ms: End; None while it is running.
        tags: Its MLflow tags.
        metrics: Called with an offset in bytes into the metrics file; returns the values after it and the file's size
            in bytes.
        params: Its MLflow parameters.
        dataset: MLflow's description of its data; None if unknown.
        files: Files to upload when it has ended: path in MLflow -> path on disk.
        resumed: Sizes in bytes to which the metrics file was cut each time the run was resumed.
    """

    name: str
    experiment: str
    attempt: str
    status: str
    started_ms: int
    ended_ms: int | None
    tags: Mapping[str, str]
    metrics: Callable[[int], tuple[list[Metric], int]]
    params: Mapping[str, str] = field(default_factory=dict)
    dataset: Mapping[str, str] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    resumed: Sequence[int] = ()


def files_hash(files: Mapping[str, Path]) -> str:
    """Return a hash of the names, sizes and modification times of files; it changes if a file changes."""
    marks = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in files.items() if path.exists()]
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:16]


def run_files(path: Path) -> dict[str, Path]:
    """Return the files of a run that MLflow gets when it has ended, by their path in the run's folder."""
    figures = sorted(file for file in (path / "figures").glob("[!.]*") if file.is_file())
    named = {name: path / name for name in RUN_FILES if (path / name).exists()}
    return named | {f"figures/{file.name}": file for file in figures}


def run_item(run: StoredRun) -> RunItem:
    """Return a training run as an item."""
    identity, ended = run.identity, run.status != "RUNNING"

    def metrics(offset: int) -> tuple[list[Metric], int]:
        lines, size = read_valid_metrics(run.path / "metrics.jsonl", offset)
        return fields.points(lines) + (fields.final_points(run) if ended else []), size

    config = {"arm": identity.arm, "seed": identity.seed, "draw": identity.draw, **identity.config}
    return RunItem(
        name=run.path.name,
        experiment=identity.experiment,
        attempt=str(identity.created_ms),
        status=run.status,
        started_ms=run.started_ms,
        ended_ms=run.ended_ms,
        tags=fields.tags(run),
        metrics=metrics,
        params=fields.flatten_params(config),
        dataset=fields.dataset(identity.data),
        files=run_files(run.path) if ended else {},
        resumed=run.resumed_bytes,
    )


def comparison_item(root: Path) -> RunItem | None:
    """Return the comparison in the folder ``report`` of an output folder; None if there is none."""
    source = root / REPORT / "comparison.json"
    content, problem = read_json_or_problem(source)
    if problem:
        return None
    about, _ = read_json_or_problem(root / "experiment.json")
    paths = [*(root / REPORT / name for name in REPORT_FILES), root / "experiment.json", root / "tuning.json"]
    time_ms = source.stat().st_mtime_ns // 1_000_000
    tags = {
        "mlflow.runName": COMPARISON,
        "mlflow.note.content": fields.cut(_text(root / REPORT / "comparison.md"), fields.MAX_TAG),
        "nc.kind": COMPARISON,
        "nc.suite": str(about.get("suite") or ""),
    }
    values = _primary_values(content)
    return RunItem(
        name=COMPARISON,
        experiment=str(about.get("name") or _experiment_of_runs(root)),
        attempt="",
        status="FINISHED",
        started_ms=time_ms,
        ended_ms=time_ms,
        tags={key: text for key, text in tags.items() if text},
        metrics=lambda _: ([Metric(key, value, time_ms, 0) for key, value in values.items()], 0),
        files={str(path.relative_to(root)): path for path in paths if path.exists()},
    )


def _experiment_of_runs(root: Path) -> str:
    names = (read_json_or_problem(path / "run.json")[0].get("experiment") for path in run_folders(root))
    return next((str(name) for name in names if name), "nc_tools")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _primary_values(content: Mapping[str, Any]) -> dict[str, float]:
    """Return each arm's numbers in the primary metric, such as mean and interval, by the key ``arm/name``."""
    rows = [row for row in content.get("rows") or () if isinstance(row, Mapping)]
    return {
        fields.safe_key(f"{row.get('arm')}/{name}"): float(row[name])
        for row in rows
        for name in ("n", "mean", "sd", "diff", "low", "high", "p_holm")
        if row.get("metric") == content.get("primary") and isinstance(row.get(name), int | float)
    }
