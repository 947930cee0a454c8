"""Mirroring records into a real SQLite store of MLflow: everything once, whatever came in between."""

import json
import math
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from nc_tools.tracking import RunIdentity, RunRecord, SyncReport, sent_state, store
from nc_tools.tracking.store import connect, resolve_store
from nc_tools.tracking.sync_once import Synchronizer

CURVE = [0.9, 0.5, float("nan"), 0.2]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    """A fresh MLflow store, migrated once: copying it saves 1.5 s a test."""
    root = tmp_path_factory.getbasetemp() / "migrated"
    if not root.exists():
        connect(resolve_store(root, f"sqlite:///{root}/mlflow.db"))
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path, migrated, monkeypatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(store, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr("nc_tools.tracking.sync_once.RETRY_SECONDS", 0.0)
    out = tmp_path / "an out"
    out.mkdir()
    shutil.copy(migrated, out / "mlflow.db")
    return out


def pusher(root: Path) -> Synchronizer:
    return Synchronizer(root, resolve_store(root, None), None)


def begin(root: Path, seed: int = 0, **changes) -> RunRecord:
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


def log_curve(run: RunRecord, first: int = 1) -> None:
    for step, value in enumerate(CURVE[first - 1 :], start=first):
        run.log(step, {"train/loss": value, "top-5 (%)": 50.0})


def complete(root: Path, seed: int = 0, **changes) -> RunRecord:
    with begin(root, seed, **changes) as run:
        log_curve(run)
        (run.figures / "nc.png").write_bytes(b"png")
        (run.path / "weights.safetensors").write_bytes(b"weights")
        (run.path / "checkpoint.pt").write_bytes(b"never sent")
        run.finish({"test/gen/accuracy": 0.75, "test/cal/nll": math.inf})
    return run


def client(root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")


def runs(root: Path, name: str = "digits-lt") -> list:
    found = client(root).get_experiment_by_name(name)
    return [] if found is None else list(client(root).search_runs([found.experiment_id]))


def history(root: Path, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client(root).get_metric_history(run_id, key)]


def assert_complete(root: Path, run) -> None:
    """Everything of ``complete`` is there, once."""
    assert run.info.status == "FINISHED"
    points = history(root, run.info.run_id, "train/loss")
    assert [step for step, _ in points] == [1, 2, 3, 4]
    assert [value for _, value in points if not math.isnan(value)] == [0.9, 0.5, 0.2]
    assert history(root, run.info.run_id, "test/gen/accuracy") == [(4, 0.75)]
    assert len(history(root, run.info.run_id, "top-5 _x28__x25__x29_")) == 4
    assert len(run.inputs.dataset_inputs) == 1
    files = {file.path for file in client(root).list_artifacts(run.info.run_id)}
    assert files == {"figures", "final.json", "run.json", "weights.safetensors"}


def test_a_finished_run_is_there_in_full(root):
    record = complete(root)
    assert pusher(root).push() == SyncReport(1, 0, None)
    assert pusher(root).push() == SyncReport(0, 0, None)
    (run,) = runs(root)
    assert_complete(root, run)
    assert run.info.run_name == "etf s0 d0"
    assert run.data.params == {
        "arm": "etf",
        "seed": "0",
        "draw": "0",
        "lr": "0.1",
        "head.name": "etf",
        "head.scale": "null",
    }
    for key, value in {
        "nc.arm": "etf",
        "nc.seed": "0",
        "nc.draw": "0",
        "nc.kind": "final",
        "nc.suite": "s1",
        "nc.config_hash": record.identity.config_hash,
        "nc.group_hash": record.identity.group_hash,
        "nc.pid": str(os.getpid()),
        "mlflow.source.git.commit": "c0ffee",
    }.items():
        assert run.data.tags[key] == value
    assert math.isnan(run.data.metrics["test/cal/nll"])
    stored = record.read()
    assert (run.info.start_time, run.info.end_time) == (stored.started_ms, stored.ended_ms)
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("digits", "f" * 36)
    experiment = client(root).get_experiment(run.info.experiment_id)
    assert experiment.artifact_location == (root / "artifacts" / "digits-lt").as_uri()


def test_a_living_run_grows_and_ends(root):
    push = pusher(root)
    run = begin(root)
    run.log(1, {"train/loss": 1.0})
    assert push.push().sent == 1
    (shown,) = runs(root)
    assert shown.info.status == "RUNNING"
    assert push.push().sent == 0
    run.log(2, {"train/loss": 0.5})
    assert push.push().sent == 1
    assert history(root, shown.info.run_id, "train/loss") == [(1, 1.0), (2, 0.5)]
    run.fail(ValueError("loss is nan at step 3"))
    push.push()
    (shown,) = runs(root)
    assert shown.info.status == "FAILED"
    assert "loss is nan at step 3" in shown.data.tags["mlflow.note.content"]


def test_a_dead_run_is_mended_on_the_way(root):
    run = begin(root)
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "pid_started": 1.0}))
    pusher(root).push()
    assert [shown.info.status for shown in runs(root)] == ["KILLED"]


def test_a_crash_between_any_two_steps_loses_and_doubles_nothing(root, monkeypatch):
    complete(root)
    real = sent_state.save_sent
    for crash_at in range(20):
        calls = 0

        def crashing(*args, allowed=crash_at):
            nonlocal calls
            calls += 1
            if calls > allowed:
                raise KeyboardInterrupt  # nothing in the pusher may take this for an error to go on from
            real(*args)

        monkeypatch.setattr(sent_state, "save", crashing)
        try:
            pusher(root).push()
        except KeyboardInterrupt:
            # The next process starts from the very note that the crash left.
            continue
        break
    else:
        pytest.fail("the crash was always there")
    assert crash_at >= 1
    (run,) = runs(root)
    assert_complete(root, run)


@pytest.mark.parametrize("loss", ["notes", "store"])
def test_lost_notes_and_a_lost_store_are_made_good(root, migrated, loss):
    complete(root)
    pusher(root).push()
    if loss == "notes":
        next(root.glob("runs/*/mlflow.json")).unlink()
    else:
        (root / "moved.db").write_bytes((root / "mlflow.db").read_bytes())
        with closing(sqlite3.connect(root / "mlflow.db")) as database:
            database.execute("PRAGMA foreign_keys = ON")
            for table in ("inputs", "datasets", "latest_metrics", "metrics", "params", "tags", "runs"):
                database.execute(f"DELETE FROM {table}")
            database.commit()
    assert pusher(root).push().error is None
    (run,) = runs(root)
    assert_complete(root, run)


def test_a_locked_store_is_pending_and_sent_later(root):
    complete(root)
    with closing(sqlite3.connect(root / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        report = pusher(root).push()
        assert (report.sent, report.pending) == (0, 1)
        assert "locked" in report.error
        assert str(root) in report.advice(root)
        other.execute("ROLLBACK")
    assert pusher(root).push().sent == 1
    assert_complete(root, runs(root)[0])


def test_a_resumed_run_shows_no_step_twice(root):
    push = pusher(root)
    run = begin(root)
    log_curve(run)
    run.kill()
    push.push()
    resumed = RunRecord.open(run.path, step=2)
    resumed.log(3, {"train/loss": 30.0})
    resumed.log(4, {"train/loss": 40.0})
    push.push()
    (shown,) = runs(root)
    assert shown.info.status == "RUNNING"
    assert history(root, shown.info.run_id, "train/loss") == [(1, 0.9), (2, 0.5), (3, 30.0), (4, 40.0)]
    resumed.finish({"test/gen/accuracy": 0.5})
    push.push()
    assert [shown.info.status for shown in runs(root)] == ["FINISHED"]


def test_a_resumed_run_of_which_nothing_was_cut_keeps_its_place(root):
    push = pusher(root)
    run = begin(root)
    run.log(1, {"train/loss": 1.0})
    run.kill()
    push.push()
    before = runs(root)[0].info.run_id
    resumed = RunRecord.open(run.path, step=1)
    push.push()
    assert [(shown.info.run_id, shown.info.status) for shown in runs(root)] == [(before, "RUNNING")]
    resumed.finish({})
    pusher(root).push()
    assert [(shown.info.run_id, shown.info.status) for shown in runs(root)] == [(before, "FINISHED")]


def test_a_run_deleted_in_mlflow_stays_deleted(root):
    complete(root)
    pusher(root).push()
    client(root).delete_run(runs(root)[0].info.run_id)
    assert pusher(root).push() == pusher(root).push()
    assert runs(root) == []


def test_one_refused_run_does_not_hold_up_the_others(root):
    bad, good = complete(root, seed=0), complete(root, seed=1)
    (bad.path / "metrics.jsonl").write_text("not json\n")
    report = pusher(root).push()
    assert (report.sent, report.pending) == (1, 1)
    assert bad.path.name in report.error
    assert {shown.data.tags["nc.seed"]: shown.info.status for shown in runs(root)} == {
        "0": "RUNNING",
        "1": "FINISHED",
    }
    assert good.path.exists()


def test_a_ration_of_time_leaves_the_rest_to_the_next_push(root):
    for seed in range(3):
        complete(root, seed)
    push = pusher(root)
    assert push.push(cpu_seconds=-1.0) == SyncReport(0, 3, None)
    assert push.push() == SyncReport(3, 0, None)


def test_many_points_go_in_batches(root):
    with begin(root) as run:
        for step in range(400):
            run.log(step, {f"m{number}": step for number in range(6)})
        run.finish({})
    assert pusher(root).push().error is None
    (shown,) = runs(root)
    assert len(history(root, shown.info.run_id, "m5")) == 400


def test_a_figure_made_later_is_sent_later(root):
    run = complete(root)
    push = pusher(root)
    push.push()
    (run.figures / "late.png").write_bytes(b"late")
    assert push.push().sent == 1
    (shown,) = runs(root)
    names = {file.path for file in client(root).list_artifacts(shown.info.run_id, "figures")}
    assert names == {"figures/nc.png", "figures/late.png"}


def test_a_moved_folder_is_told_and_rebuilt(root, tmp_path, migrated):
    complete(root)
    pusher(root).push()
    moved = root.rename(tmp_path / "moved")
    complete(moved, seed=1)
    report = pusher(moved).push()
    assert "was moved" in report.error
    assert not root.exists()  # nothing is written to the old place
    (moved / "mlflow.db").unlink()
    shutil.rmtree(moved / "artifacts")
    shutil.copy(migrated, moved / "mlflow.db")
    rebuilt = moved.rename(tmp_path / "rebuilt")  # MLflow keeps what it opened by its path, so take a new one
    assert pusher(rebuilt).push().error is None
    assert len(runs(rebuilt)) == 2


def test_a_comparison_is_one_run_that_is_brought_up_to_date(root):
    complete(root)
    report = root / "report"
    report.mkdir()
    (root / "experiment.json").write_text(
        json.dumps({"schema": 1, "name": "digits-lt", "question": "Is a fixed ETF better?", "suite": "s1"})
    )
    (root / "tuning.json").write_text("{}")
    push = pusher(root)
    from nc_tools.tracking import comparison_run

    for text, value in (("# first", 0.1), ("# second", 0.2)):
        (report / "comparison.md").write_text(text)
        (report / "comparison.html").write_text(f"<p>{text}</p>")
        comparison_run.stage(
            root, report, {"etf": {"mean": value, "n": 5, "note": "x"}}, [{"arm": "etf", "mean": value}]
        )
        assert push.push().error is None
    assert push.push().sent == 0
    assert pusher(root).push().sent == 0
    (shown,) = [run for run in runs(root) if run.data.tags["nc.kind"] == "comparison"]
    assert shown.data.tags["mlflow.note.content"] == "# second"
    assert shown.data.tags["nc.suite"] == "s1"
    assert shown.data.metrics == {"etf/mean": 0.2, "etf/n": 5.0}
    assert shown.info.status == "FINISHED"
    files = {file.path for file in client(root).list_artifacts(shown.info.run_id)}
    assert files == {"report", "experiment.json", "tuning.json", "comparison_table.json"}
    folder = Path(client(root).download_artifacts(shown.info.run_id, ""))
    assert (folder / "report" / "comparison.html").read_text() == "<p># second</p>"
    assert json.loads((folder / "comparison_table.json").read_text()) == {
        "columns": ["arm", "mean"],
        "data": [["etf", 0.2]],
    }
    experiment = client(root).get_experiment_by_name("digits-lt")
    assert experiment.tags["mlflow.note.content"] == "Is a fixed ETF better?"


def test_nothing_is_left_in_the_environment_or_in_mlflow(root, tmp_path, monkeypatch):
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    complete(root)
    before = dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run()
    pusher(root).push()
    assert (dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run()) == before
    assert list(elsewhere.iterdir()) == []
