"""Sending records to a real SQLite store of MLflow: everything arrives once, whatever fails in between."""

import json
import math
import os
import shutil
import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from unittest import mock

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from support.mlflow_store import assert_complete, begin, client, complete, fresh_store, history, log_curve, runs

from nc_tools.run_records import RunRecord
from nc_tools.tracking import SyncReport
from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.store import resolve_store

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """An output folder with an empty store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("nc_tools.tracking.connection.BUSY_SECONDS", 0.1)
    out = tmp_path / "an out"
    out.mkdir()
    fresh_store(out / "mlflow.db", tmp_path_factory)
    return out


def mirror_of(root: Path, uri: str | None = None) -> Mirror:
    return Mirror(root, resolve_store(root, uri))


def test_a_finished_run_is_sent_completely(root):
    record = complete(root)
    assert mirror_of(root).push() == SyncReport(1, 0, None)
    assert mirror_of(root).push() == SyncReport(0, 0, None)
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
    description = run.data.tags["mlflow.note.content"]
    assert description.startswith("Arm **etf**, seed 0, draw 0 of digits-lt\n\n- data: digits\n- classes: 10\n")
    assert "- training images: 90\n" in description
    assert math.isnan(run.data.metrics["test/cal/nll"])
    stored = record.read()
    assert (run.info.start_time, run.info.end_time) == (stored.started_ms, stored.ended_ms)
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("digits", "f" * 36)
    experiment = client(root).get_experiment(run.info.experiment_id)
    assert experiment.artifact_location == (root / "artifacts" / "digits-lt").as_uri()


def test_a_running_run_is_updated_and_ended(root):
    sync = mirror_of(root)
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
    (run.path / "status.json").write_text(json.dumps({**status, "pid_started": 1.0, "pid_since_boot": 1.0}))
    mirror_of(root).push()
    assert [shown.info.status for shown in runs(root)] == ["KILLED"]


REQUESTS = (
    *("create_experiment", "get_experiment_by_name", "search_runs", "create_run", "log_batch", "log_inputs"),
    *("log_artifact", "set_terminated", "set_tag", "delete_run", "update_run"),
)


@contextmanager
def failing_at(number: int, error: BaseException, *, lost_answer: bool):
    """Let one request to MLflow, counted from 0, raise an error: before it is sent, or after it had its effect."""
    left = [number]

    def failing(request):
        def called(*arguments, **more):
            left[0] -= 1
            if left[0] == -1 and not lost_answer:
                raise error
            answer = request(*arguments, **more)
            if left[0] == -1:
                raise error
            return answer

        return called

    with mock.patch.multiple(MlflowClient, **{name: failing(getattr(MlflowClient, name)) for name in REQUESTS}):
        yield left


@pytest.mark.slow
@pytest.mark.parametrize("lost_answer", [False, True], ids=["not sent", "answer lost"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, requests.ConnectionError], ids=["process killed", "server down"])
def test_a_push_that_ends_at_any_request_loses_and_repeats_nothing(root, error, lost_answer):
    store = f"sqlite:///{root}/mlflow.db"
    for number in range(100):
        one, experiment = root / f"out {number}", f"question {number}"
        record = begin(one, experiment=experiment)  # the first attempt of a run, which is replaced by a second one
        record.kill()
        mirror_of(one, store).push()
        complete(one, experiment=experiment)
        mirror = mirror_of(one, store)
        with failing_at(number, error("lost"), lost_answer=lost_answer) as left, suppress(KeyboardInterrupt):
            mirror.push()
        if error is KeyboardInterrupt:
            mirror = mirror_of(one, store)  # the next process
        assert mirror.push().error is None
        (run,) = runs(root, experiment)
        assert_complete(root, run)
        if left[0] >= 0:
            break
    assert number > 8


def test_after_a_lost_store_everything_is_sent_again(root):
    complete(root)
    mirror_of(root).push()
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("PRAGMA foreign_keys = ON")
        for table in ("inputs", "datasets", "latest_metrics", "metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table}")
        database.commit()
    assert mirror_of(root).push().error is None
    (run,) = runs(root)
    assert_complete(root, run)


def test_a_run_that_an_earlier_version_sent_is_kept(root):
    record = complete(root)
    mirror_of(root).push()
    (before,) = runs(root)
    name = f"{record.path.name}@{record.identity.created_ms}"
    client(root).set_tag(before.info.run_id, "nc.record", name)
    for tag in ("nc.sent", "nc.attempt"):
        client(root).delete_tag(before.info.run_id, tag)
    (root / "mlflow.json").unlink()
    assert mirror_of(root).push() == SyncReport(1, 0, None)
    (after,) = runs(root)
    assert after.info.run_id == before.info.run_id
    assert_complete(root, after)
    assert mirror_of(root).push() == SyncReport(0, 0, None)


@pytest.mark.parametrize("sent", ["nothing", "a step", "while it was running"])
def test_a_run_that_is_started_again_replaces_its_first_attempt(root, sent):
    mirror = mirror_of(root)
    first = begin(root)
    if sent != "nothing":
        first.log(1, {"train/loss": 7.0})
    if sent == "while it was running":
        mirror.push()
    first.kill()
    mirror.push()
    assert [run.info.status for run in runs(root)] == ["KILLED"]
    complete(root)
    mirror.push()
    (run,) = runs(root)
    assert_complete(root, run)


def test_a_run_that_mlflow_created_twice_is_shown_once(root):
    record = begin(root)
    mirror_of(root).push()
    (shown,) = runs(root)
    tags = {key: shown.data.tags[key] for key in ("nc.record", "nc.attempt")}
    client(root).create_run(shown.info.experiment_id, tags=tags)  # its answer came too late
    assert len(runs(root)) == 2
    log_curve(record)
    mirror_of(root).push()
    assert [run.info.run_id for run in runs(root)] == [shown.info.run_id]


def test_two_folders_with_the_same_runs_stay_apart_on_one_server(root, tmp_path):
    shared = f"sqlite:///{root}/mlflow.db"
    folders = [tmp_path / name for name in ("a", "b")]
    for number, folder in enumerate(folders):
        complete(folder)
        report_of(folder, number)
        assert mirror_of(folder, shared).push() == SyncReport(2, 0, None)
    for folder in folders:
        assert mirror_of(folder, shared).push() == SyncReport(0, 0, None)
    shown = runs(root)
    assert sorted(run.data.tags["nc.kind"] for run in shown) == ["comparison", "comparison", "final", "final"]
    comparisons = [run for run in shown if run.data.tags["nc.kind"] == "comparison"]
    assert sorted(run.data.metrics["etf/diff"] for run in comparisons) == [0.0, 1.0]
    links = {run.data.tags["nc.comparison"] for run in shown if run.data.tags["nc.kind"] == "final"}
    assert links == {run.info.run_id for run in comparisons}


def test_a_locked_store_is_pending_and_sent_later(root):
    complete(root)
    with closing(sqlite3.connect(root / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        report = mirror_of(root).push()
        assert (report.sent, report.pending) == (0, 1)
        assert "locked" in report.error
        other.execute("ROLLBACK")
    assert mirror_of(root).push().sent == 1
    assert_complete(root, runs(root)[0])


def test_a_resumed_run_shows_no_step_twice(root):
    sync = mirror_of(root)
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
    sync = mirror_of(root)
    run = begin(root)
    run.log(1, {"train/loss": 1.0})
    run.kill()
    sync.push()
    before = runs(root)[0].info.run_id
    resumed = RunRecord.open(run.path, step=1)
    sync.push()
    assert [(shown.info.run_id, shown.info.status) for shown in runs(root)] == [(before, "RUNNING")]
    resumed.finish({})
    mirror_of(root).push()
    assert [(shown.info.run_id, shown.info.status) for shown in runs(root)] == [(before, "FINISHED")]


def test_a_run_deleted_in_mlflow_stays_deleted(root):
    complete(root)
    mirror_of(root).push()
    client(root).delete_run(runs(root)[0].info.run_id)
    assert mirror_of(root).push() == mirror_of(root).push()
    assert runs(root) == []


def test_one_rejected_run_does_not_stop_the_others(root):
    bad, good = complete(root, seed=0), complete(root, seed=1)
    (bad.path / "metrics.jsonl").write_text("not json\n")
    report = mirror_of(root).push()
    assert (report.sent, report.pending) == (1, 1)
    assert bad.path.name in report.error
    assert {shown.data.tags["nc.seed"]: shown.info.status for shown in runs(root)} == {
        "0": "RUNNING",
        "1": "FINISHED",
    }
    assert good.path.exists()


def test_many_points_go_in_batches(root):
    with begin(root) as run:
        for step in range(400):
            run.log(step, {f"m{number}": step for number in range(6)})
        run.finish({})
    assert mirror_of(root).push().error is None
    (shown,) = runs(root)
    assert len(history(root, shown.info.run_id, "m5")) == 400


def test_a_later_figure_is_sent_later(root):
    run = complete(root)
    sync = mirror_of(root)
    sync.push()
    (run.figures / "late.png").write_bytes(b"late")
    assert sync.push().sent == 1
    (shown,) = runs(root)
    names = {file.path for file in client(root).list_artifacts(shown.info.run_id, "figures")}
    assert names == {"figures/nc.png", "figures/late.png"}


def test_a_moved_folder_is_reported_and_its_store_rebuilt(root, tmp_path, tmp_path_factory):
    complete(root)
    mirror_of(root).push()
    moved = root.rename(tmp_path / "moved")
    complete(moved, seed=1)
    report = mirror_of(moved).push()
    assert "was moved" in report.error
    assert not root.exists()  # nothing is written to the old path
    (moved / "mlflow.db").unlink()
    shutil.rmtree(moved / "artifacts")
    fresh_store(moved / "mlflow.db", tmp_path_factory)
    rebuilt = moved.rename(tmp_path / "rebuilt")  # a new path, because MLflow keeps open what it opened by path
    assert mirror_of(rebuilt).push().error is None
    assert len(runs(rebuilt)) == 2


def report_of(root: Path, value: float, text: str = "# report", **about) -> None:
    """Write the files of a report whose arm etf differs from the baseline by a value."""
    report = root / "report"
    report.mkdir(exist_ok=True)
    numbers = {"n": 5, "mean": 0.7, "diff": value, "low": None}
    rows = [{"arm": "etf", "metric": "acc", **numbers}, {"arm": "etf", "metric": "other", **numbers}]
    content = {"schema": 1, "name": root.name, "primary": "acc", "rows": rows}
    (report / "comparison.json").write_text(json.dumps(content))
    (report / "comparison.md").write_text(text)
    (report / "comparison.html").write_text(f"<p>{text}</p>")
    if about:
        (root / "experiment.json").write_text(json.dumps({"schema": 1, **about}))


def test_a_comparison_is_one_run_that_is_updated(root):
    complete(root)
    (root / "tuning.json").write_text("{}")
    mirror = mirror_of(root)
    for text, value in (("# first", 0.1), ("# second", 0.2)):
        report_of(root, value, text, name="digits-lt", question="Is a fixed ETF better?", suite="s1")
        assert mirror.push().error is None
    assert mirror.push().sent == 0
    assert mirror_of(root).push().sent == 0
    (shown,) = [run for run in runs(root) if run.data.tags["nc.kind"] == "comparison"]
    (arm,) = [run for run in runs(root) if run.data.tags["nc.kind"] == "final"]
    assert shown.data.tags["mlflow.note.content"] == "# second"
    assert shown.data.tags["nc.suite"] == "s1"
    assert shown.data.metrics == {"etf/n": 5.0, "etf/mean": 0.7, "etf/diff": 0.2}
    assert shown.info.status == "FINISHED"
    assert arm.data.tags["nc.comparison"] == shown.info.run_id
    assert "mlflow.parentRunId" not in arm.data.tags  # it would hide the run from the charts
    files = {file.path for file in client(root).list_artifacts(shown.info.run_id)}
    assert files == {"report", "experiment.json", "tuning.json"}
    folder = Path(client(root).download_artifacts(shown.info.run_id, ""))
    assert (folder / "report" / "comparison.html").read_text() == "<p># second</p>"
    experiment = client(root).get_experiment_by_name("digits-lt")
    assert experiment.tags["mlflow.note.content"] == "Is a fixed ETF better?"


def test_the_comparison_of_own_loops_is_in_their_experiment(root):
    complete(root, kind="loop", experiment="my question")
    report_of(root, 0.5)
    mirror_of(root).push()
    assert sorted(run.data.tags["nc.kind"] for run in runs(root, "my question")) == ["comparison", "loop"]


def test_environment_and_mlflow_settings_stay_as_they_were(root, tmp_path, monkeypatch):
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    complete(root)
    before = dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run()
    mirror_of(root).push()
    assert (dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run()) == before
    assert list(elsewhere.iterdir()) == []
