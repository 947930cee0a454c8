"""Sending records to a real SQLite store of MLflow: everything arrives once, whatever fails in between."""

import json
import math
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from support.mlflow_store import assert_complete, begin, client, complete, fresh_store, history, log_curve, runs

from nc_tools.run_records import RunRecord
from nc_tools.tracking import SyncReport, comparison_run, sent_state, store
from nc_tools.tracking.store import resolve_store
from nc_tools.tracking.sync_once import Synchronizer


@pytest.fixture
def root(tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """An output folder with an empty store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(store, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr("nc_tools.tracking.sync_once.RETRY_SECONDS", 0.0)
    out = tmp_path / "an out"
    out.mkdir()
    fresh_store(out / "mlflow.db", tmp_path_factory)
    return out


def synchronizer(root: Path) -> Synchronizer:
    return Synchronizer(root, resolve_store(root, None), None)


def test_a_finished_run_is_sent_completely(root):
    record = complete(root)
    assert synchronizer(root).push() == SyncReport(1, 0, None)
    assert synchronizer(root).push() == SyncReport(0, 0, None)
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


def test_a_running_run_is_updated_and_ended(root):
    sync = synchronizer(root)
    run = begin(root)
    run.log(1, {"train/loss": 1.0})
    assert sync.push().sent == 1
    (shown,) = runs(root)
    assert shown.info.status == "RUNNING"
    assert sync.push().sent == 0
    run.log(2, {"train/loss": 0.5})
    assert sync.push().sent == 1
    assert history(root, shown.info.run_id, "train/loss") == [(1, 1.0), (2, 0.5)]
    run.fail(ValueError("loss is nan at step 3"))
    sync.push()
    (shown,) = runs(root)
    assert shown.info.status == "FAILED"
    assert "loss is nan at step 3" in shown.data.tags["mlflow.note.content"]


def test_a_dead_run_is_marked_and_sent_as_killed(root):
    run = begin(root)
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "pid_started": 1.0}))
    synchronizer(root).push()
    assert [shown.info.status for shown in runs(root)] == ["KILLED"]


def test_a_crash_between_any_two_steps_loses_and_repeats_nothing(root, monkeypatch):
    complete(root)
    real = sent_state.save_sent
    for crash_at in range(20):
        calls = 0

        def crashing(*args, allowed=crash_at):
            nonlocal calls
            calls += 1
            if calls > allowed:
                raise KeyboardInterrupt  # which no handler of errors catches
            real(*args)

        monkeypatch.setattr(sent_state, "save_sent", crashing)
        try:
            synchronizer(root).push()
        except KeyboardInterrupt:
            # The next process starts from the state that the crash left.
            continue
        break
    else:
        pytest.fail("the crash was always there")
    assert crash_at >= 1
    (run,) = runs(root)
    assert_complete(root, run)


@pytest.mark.parametrize("loss", ["state file", "store"])
def test_after_a_lost_state_file_or_store_everything_is_sent_again(root, loss):
    complete(root)
    synchronizer(root).push()
    if loss == "state file":
        next(root.glob("runs/*/mlflow.json")).unlink()
    else:
        (root / "moved.db").write_bytes((root / "mlflow.db").read_bytes())
        with closing(sqlite3.connect(root / "mlflow.db")) as database:
            database.execute("PRAGMA foreign_keys = ON")
            for table in ("inputs", "datasets", "latest_metrics", "metrics", "params", "tags", "runs"):
                database.execute(f"DELETE FROM {table}")
            database.commit()
    assert synchronizer(root).push().error is None
    (run,) = runs(root)
    assert_complete(root, run)


def test_a_locked_store_is_pending_and_sent_later(root):
    complete(root)
    with closing(sqlite3.connect(root / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        report = synchronizer(root).push()
        assert (report.sent, report.pending) == (0, 1)
        assert "locked" in report.error
        assert str(root) in report.advice(root)
        other.execute("ROLLBACK")
    assert synchronizer(root).push().sent == 1
    assert_complete(root, runs(root)[0])


def test_a_resumed_run_shows_no_step_twice(root):
    sync = synchronizer(root)
    run = begin(root)
    log_curve(run)
    run.kill()
    sync.push()
    resumed = RunRecord.open(run.path, step=2)
    resumed.log(3, {"train/loss": 30.0})
    resumed.log(4, {"train/loss": 40.0})
    sync.push()
    (shown,) = runs(root)
    assert shown.info.status == "RUNNING"
    assert history(root, shown.info.run_id, "train/loss") == [(1, 0.9), (2, 0.5), (3, 30.0), (4, 40.0)]
    resumed.finish({"test/gen/accuracy": 0.5})
    sync.push()
    assert [shown.info.status for shown in runs(root)] == ["FINISHED"]


def test_a_resumed_run_without_truncated_lines_keeps_its_mlflow_run(root):
    sync = synchronizer(root)
    run = begin(root)
    run.log(1, {"train/loss": 1.0})
    run.kill()
    sync.push()
    before = runs(root)[0].info.run_id
    resumed = RunRecord.open(run.path, step=1)
    sync.push()
    assert [(shown.info.run_id, shown.info.status) for shown in runs(root)] == [(before, "RUNNING")]
    resumed.finish({})
    synchronizer(root).push()
    assert [(shown.info.run_id, shown.info.status) for shown in runs(root)] == [(before, "FINISHED")]


def test_a_run_deleted_in_mlflow_stays_deleted(root):
    complete(root)
    synchronizer(root).push()
    client(root).delete_run(runs(root)[0].info.run_id)
    assert synchronizer(root).push() == synchronizer(root).push()
    assert runs(root) == []


def test_one_rejected_run_does_not_stop_the_others(root):
    bad, good = complete(root, seed=0), complete(root, seed=1)
    (bad.path / "metrics.jsonl").write_text("not json\n")
    report = synchronizer(root).push()
    assert (report.sent, report.pending) == (1, 1)
    assert bad.path.name in report.error
    assert {shown.data.tags["nc.seed"]: shown.info.status for shown in runs(root)} == {
        "0": "RUNNING",
        "1": "FINISHED",
    }
    assert good.path.exists()


def test_a_limit_of_time_leaves_the_rest_to_the_next_push(root):
    for seed in range(3):
        complete(root, seed)
    sync = synchronizer(root)
    assert sync.push(cpu_seconds=-1.0) == SyncReport(0, 3, None)
    assert sync.push() == SyncReport(3, 0, None)


def test_many_points_go_in_batches(root):
    with begin(root) as run:
        for step in range(400):
            run.log(step, {f"m{number}": step for number in range(6)})
        run.finish({})
    assert synchronizer(root).push().error is None
    (shown,) = runs(root)
    assert len(history(root, shown.info.run_id, "m5")) == 400


def test_a_later_figure_is_sent_later(root):
    run = complete(root)
    sync = synchronizer(root)
    sync.push()
    (run.figures / "late.png").write_bytes(b"late")
    assert sync.push().sent == 1
    (shown,) = runs(root)
    names = {file.path for file in client(root).list_artifacts(shown.info.run_id, "figures")}
    assert names == {"figures/nc.png", "figures/late.png"}


def test_a_moved_folder_is_reported_and_its_store_rebuilt(root, tmp_path, tmp_path_factory):
    complete(root)
    synchronizer(root).push()
    moved = root.rename(tmp_path / "moved")
    complete(moved, seed=1)
    report = synchronizer(moved).push()
    assert "was moved" in report.error
    assert not root.exists()  # nothing is written to the old path
    (moved / "mlflow.db").unlink()
    shutil.rmtree(moved / "artifacts")
    fresh_store(moved / "mlflow.db", tmp_path_factory)
    rebuilt = moved.rename(tmp_path / "rebuilt")  # a new path, because MLflow keeps open what it opened by path
    assert synchronizer(rebuilt).push().error is None
    assert len(runs(rebuilt)) == 2


def test_a_comparison_is_one_run_that_is_updated(root):
    complete(root)
    report = root / "report"
    report.mkdir()
    (root / "experiment.json").write_text(
        json.dumps({"schema": 1, "name": "digits-lt", "question": "Is a fixed ETF better?", "suite": "s1"})
    )
    (root / "tuning.json").write_text("{}")
    sync = synchronizer(root)
    for text, value in (("# first", 0.1), ("# second", 0.2)):
        (report / "comparison.md").write_text(text)
        (report / "comparison.html").write_text(f"<p>{text}</p>")
        comparison_run.stage(
            root, report, {"etf": {"mean": value, "n": 5, "note": "x"}}, [{"arm": "etf", "mean": value}]
        )
        assert sync.push().error is None
    assert sync.push().sent == 0
    assert synchronizer(root).push().sent == 0
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


def test_environment_and_mlflow_settings_stay_as_they_were(root, tmp_path, monkeypatch):
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    complete(root)
    before = dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run()
    synchronizer(root).push()
    assert (dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run()) == before
    assert list(elsewhere.iterdir()) == []
