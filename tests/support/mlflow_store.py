"""A fresh MLflow store in SQLite, and records to send there."""

import math
import shutil
from pathlib import Path

from mlflow import MlflowClient

from nc_tools.run_records import RunIdentity, RunRecord
from nc_tools.tracking.connection import connect
from nc_tools.tracking.store import resolve_store
from support.session_folder import session_folder

CURVE = [0.9, 0.5, float("nan"), 0.2]


def migrated_store(tmp_path_factory) -> Path:
    """Return an empty store whose tables were created once in this test session, which takes 1.5 s."""
    database = session_folder(tmp_path_factory) / "migrated" / "mlflow.db"
    if not database.exists():  # it is moved into place when it is complete; a process that makes it is waited for
        connect(resolve_store(database.parent, f"sqlite:///{database}"))
    return database


def fresh_store(target: Path, tmp_path_factory) -> Path:
    """Copy the store of :func:`migrated_store`."""
    return Path(shutil.copy(migrated_store(tmp_path_factory), target))


def begin(root: Path, seed: int = 0, **changes) -> RunRecord:
    """Start a run of the experiment digits-lt."""
    values = {
        "kind": "final",
        "arm": "etf",
        "experiment": "digits-lt",
        "suite": "s1",
        "config": {"lr": 0.1, "head": {"name": "etf", "scale": None}},
        "data": {"name": "digits", "fingerprint": "f" * 64, "num_classes": 10, "class_counts": [9] * 10},
        "git_commit": "c0ffee",
    }
    return RunRecord.create(root, RunIdentity(seed=seed, **{**values, **changes}))


def log_curve(run: RunRecord) -> None:
    """Log four steps, one of them with a value that is not finite."""
    for step, value in enumerate(CURVE, start=1):
        run.log(step, {"train/loss": value, "top-5 (%)": 50.0})


def complete(root: Path, seed: int = 0, **changes) -> RunRecord:
    """Record a whole run with files."""
    with begin(root, seed, **changes) as run:
        log_curve(run)
        (run.figures / "nc.png").write_bytes(b"png")
        (run.path / "weights.safetensors").write_bytes(b"weights")
        (run.path / "checkpoint.pt").write_bytes(b"never sent")
        run.finish({"test/gen/accuracy": 0.75, "test/cal/nll": math.inf})
    return run


def client(root: Path) -> MlflowClient:
    """Return MLflow's client of the store in an output folder."""
    return MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")


def runs(root: Path, name: str = "digits-lt") -> list:
    """Return the runs of an experiment."""
    experiment = client(root).get_experiment_by_name(name)
    return [] if experiment is None else list(client(root).search_runs([experiment.experiment_id]))


def history(root: Path, run_id: str, key: str) -> list[tuple[int, float]]:
    """Return the points of one metric as (step, value)."""
    return [(point.step, point.value) for point in client(root).get_metric_history(run_id, key)]


def assert_complete(root: Path, run) -> None:
    """Check that everything of a complete run is in the store, once."""
    assert run.info.status == "FINISHED"
    points = history(root, run.info.run_id, "train/loss")
    assert [step for step, _ in points] == [1, 2, 3, 4]
    assert [value for _, value in points if not math.isnan(value)] == [0.9, 0.5, 0.2]
    assert history(root, run.info.run_id, "test/gen/accuracy") == [(4, 0.75)]
    assert len(history(root, run.info.run_id, "top-5 _x28__x25__x29_")) == 4
    assert len(run.inputs.dataset_inputs) == 1
    files = {file.path for file in client(root).list_artifacts(run.info.run_id)}
    assert files == {"figures", "final.json", "metrics.jsonl", "run.json", "status.json", "weights.safetensors"}
