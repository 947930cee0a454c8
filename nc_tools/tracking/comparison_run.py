"""Upload a comparison to MLflow as a run of its own, with report, table and a note on the run's page.

The content is first saved beside the report. If the server cannot be reached, the next sync sends it.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nc_tools.run_records.json_files import read_json, write_json
from nc_tools.tracking import mlflow_fields, sent_state
from nc_tools.tracking.experiments import Experiments

STAGED = "tracking.json"
REPORT_FILES = ("comparison.html", "comparison.md", "comparison.csv", "comparison.json", "over_nc1.svg")
TABLE = "comparison_table.json"
MAX_METRICS = 500


@dataclass(frozen=True)
class Staged:
    """A saved comparison that is not in the MLflow store ``key`` yet, or only in an older version."""

    root: Path
    key: str
    content: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Path of the folder that holds the saved comparison and the state of its upload."""
        return self.root / "report"

    def send(self, experiments: Experiments) -> bool:
        """Create or update the MLflow run of the comparison; a run of the same suite is updated."""
        from mlflow.entities import Metric, RunTag

        client, content = experiments.client, self.content
        state = sent_state.load_sent(self.folder, self.key)
        if state.run_id is None or experiments.stage(state.run_id) != "active":
            state = sent_state.Sent(experiment_id=experiments.id_of(content["experiment"]))
            record = f"comparison@{content['suite'] or self.root}"
            tags = {"mlflow.runName": "comparison", "nc.record": record, "nc.kind": "comparison"}
            if content["suite"]:
                tags["nc.suite"] = content["suite"]
            assert state.experiment_id is not None  # noqa: S101
            state.run_id = experiments.find(record) or experiments.learn(
                client.create_run(state.experiment_id, start_time=content["staged_ms"], tags=tags).info.run_id,
                record,
            )
            sent_state.save_sent(self.folder, self.key, state)
        for name, path in _files(self.root, content):
            mark = sent_state.signature(path)
            if state.artifacts.get(name) != mark:
                client.log_artifact(state.run_id, str(path), "report" if name.startswith("report/") else None)
                state.artifacts[name] = mark
        client.log_text(state.run_id, json.dumps(_table(content["rows"])), TABLE)
        present = client.get_run(state.run_id).data.metrics
        points = {key: value for key, value in _numbers(content["summary"]).items() if present.get(key) != value}
        client.log_batch(
            state.run_id,
            metrics=[Metric(key, value, content["staged_ms"], 0) for key, value in points.items()],
            tags=[RunTag(key, value) for key, value in self._notes().items()],
        )
        client.set_terminated(state.run_id, "FINISHED", content["staged_ms"])
        state.ended = ["FINISHED", content["staged_ms"]]
        sent_state.save_sent(self.folder, self.key, state)
        return True

    def _notes(self) -> dict[str, str]:
        notes = {"mlflow.loggedArtifacts": json.dumps([{"path": TABLE, "type": "table"}])}
        markdown = self.root / self.content["report_dir"] / "comparison.md"
        if markdown.exists():
            notes["mlflow.note.content"] = mlflow_fields.cut(
                markdown.read_text(encoding="utf-8"), mlflow_fields.MAX_TAG
            )
        return notes


def stage(root: Path, report_dir: Path, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Save a comparison in the output folder, so that the next sync uploads it to MLflow.

    Args:
        root: Output folder.
        report_dir: Folder with the files of the report.
        summary: Nested mapping; its numbers become metrics of the comparison's run.
        rows: The table, as one mapping of column to value for each row.
    """
    try:
        about = read_json(root / "experiment.json")
    except (OSError, ValueError):
        about = {}
    report_dir = report_dir.resolve()
    (root / "report").mkdir(exist_ok=True)
    write_json(
        root / "report" / STAGED,
        {
            "schema": 1,
            # Relative if possible, so that the output folder can be moved.
            "report_dir": str(report_dir.relative_to(root) if report_dir.is_relative_to(root) else report_dir),
            "experiment": str(summary.get("experiment") or about.get("name") or "nc_tools"),
            "suite": str(summary.get("suite") or about.get("suite") or ""),
            "staged_ms": time.time_ns() // 1_000_000,
            "summary": summary,
            "rows": list(rows),
        },
    )


def staged(root: Path, key: str, experiment: str | None = None) -> Staged | None:
    """Return the comparison saved in ``root`` if the MLflow store ``key`` lacks this version; otherwise None."""
    folder = root / "report"
    try:
        content = read_json(folder / STAGED)
    except FileNotFoundError:
        return None
    state = sent_state.load_sent(folder, key)
    all_sent = all(state.artifacts.get(name) == sent_state.signature(path) for name, path in _files(root, content))
    if state.ended == ["FINISHED", content["staged_ms"]] and all_sent:
        return None
    return Staged(root, key, {**content, "experiment": experiment or content["experiment"]})


def _files(root: Path, content: Mapping[str, Any]) -> list[tuple[str, Path]]:
    folder = root / content["report_dir"]
    files = [(f"report/{name}", folder / name) for name in REPORT_FILES]
    files += [(name, root / name) for name in ("experiment.json", "tuning.json")]
    return [(name, path) for name, path in files if path.exists()]


def _numbers(summary: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a comparison's nested summary as metrics, without its lists and texts."""
    metrics: dict[str, float] = {}
    for key, value in summary.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            metrics.update(_numbers(value, f"{name}/"))
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            metrics[mlflow_fields.safe_key(name)] = float(value)
    return dict(list(metrics.items())[:MAX_METRICS])


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a comparison's table in the form that MLflow's page can show."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return {"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]}
