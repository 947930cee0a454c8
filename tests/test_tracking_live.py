"""The process that sends runs to MLflow: beside a training, at its end, and after the training was killed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from mlflow import MlflowClient
from support.mlflow_store import fresh_store

import nc_tools
from nc_tools.run_records import RunIdentity, RunRecord, read_runs
from nc_tools.tracking import MlflowSync, mlflow_sync

pytestmark = pytest.mark.slow

SOURCE = Path(nc_tools.__file__).resolve().parents[1]


@pytest.fixture
def out(tmp_path, tmp_path_factory, monkeypatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "out").mkdir()
    fresh_store(tmp_path / "out" / "mlflow.db", tmp_path_factory)
    return tmp_path / "out"


def shown_runs(database: Path, name: str = "nc_tools") -> list:
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name(name)
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def start_loop(body: str, cwd: Path) -> subprocess.Popen[str]:
    script = f"import sys, time\nfrom nc_tools.tracking import track\n{body}"
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.1)


def test_a_users_loop_is_in_mlflow_when_the_program_ends_and_its_environment_is_unchanged(out, tmp_path):
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    # A script of this name in the working directory must not be imported as MLflow.
    (elsewhere / "mlflow.py").write_text("raise SystemExit('wrong mlflow')")
    body = f"""
import os
before = dict(os.environ)
for seed in range(2):
    with track({str(out)!r}, arm="mine", seed=seed, config={{"lr": 0.1}}, class_counts=[5, 3]) as run:
        run.log(1, {{"train/loss": 1.0}})
        run.finish({{"test/gen/accuracy": 0.5}})
print(dict(os.environ) == before, "mlflow" in sys.modules)
"""
    process = start_loop(body, elsewhere)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "True False\n", "")
    shown = shown_runs(out / "mlflow.db")
    assert sorted((run.data.tags["nc.seed"], run.info.status) for run in shown) == [
        ("0", "FINISHED"),
        ("1", "FINISHED"),
    ]
    assert [path.name for path in elsewhere.iterdir()] == ["mlflow.py"]
    (run, _) = read_runs(out, ("loop",))
    assert run.identity.data["class_counts"] == [5, 3]


def test_a_loss_that_requires_grad_is_logged_without_a_warning(tmp_path):
    loss = (torch.tensor([2.0], requires_grad=True) ** 2).sum()
    with RunRecord.create(tmp_path, RunIdentity("loop", arm="mine", seed=0)) as run:
        run.log(1, {"train/loss": loss})
        run.finish({"test/loss": loss})
    assert run.read().curves() == {"train/loss": [(1, 4.0)]}
    loss.backward()  # its graph is still there


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed must be a whole number from 0 to 2^63 - 1, got -1"),
        ({"seed": 1.5}, ValueError, "seed must be a whole number from 0 to 2^63 - 1, got 1.5"),
        ({"seed": 0, "draw": True}, ValueError, "draw must be a whole number from 0 to 2^63 - 1, got True"),
        ({"seed": 0, "tracking_uri": 5}, TypeError, "tracking_uri must be a text such as 'http://127.0.0.1:5000'"),
    ],
)
def test_what_cannot_name_a_run_or_a_store_is_refused(tmp_path, wrong, error, message):
    with pytest.raises(error, match=re.escape(message)), nc_tools.track(tmp_path / "out", arm="mine", **wrong):
        pass
    assert not (tmp_path / "out").exists()


def test_a_run_can_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with nc_tools.track("out", arm="mine", seed=0, tracking_uri="none") as run:
        run.finish({"test/gen/accuracy": 0.5})
    assert run.read().status == "FINISHED"
    assert [path.name for path in tmp_path.rglob("*") if path.parent in (tmp_path, tmp_path / "out")] == ["out", "runs"]


@pytest.mark.slow
def test_a_program_ended_by_sigkill_is_shown_as_killed(out, tmp_path):
    body = f"""
with track({str(out)!r}, arm="mine", seed=0) as run:
    run.log(1, {{"train/loss": 1.0}})
    print("ready", flush=True)
    time.sleep(60)
"""
    process = start_loop(body, tmp_path)
    assert process.stdout.readline() == "ready\n"
    wait_until(lambda: [run.info.status for run in shown_runs(out / "mlflow.db")] == ["RUNNING"])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: [run.info.status for run in shown_runs(out / "mlflow.db")] == ["KILLED"])
    assert [run.status for run in read_runs(out, ("loop",))] == ["KILLED"]


@pytest.mark.slow
def test_two_programs_at_once_on_one_fresh_store(tmp_path):
    store = f"sqlite:///{tmp_path}/shared/mlflow.db"
    bodies = [
        f"""
with track({str(tmp_path / name)!r}, arm={name!r}, seed=0, tracking_uri={store!r}) as run:
    run.finish({{"test/gen/accuracy": 0.5}})
"""
        for name in ("a", "b")
    ]
    processes = [start_loop(body, tmp_path) for body in bodies]
    for process in processes:
        assert process.communicate(timeout=90) == ("", "")
    shown = shown_runs(tmp_path / "shared" / "mlflow.db")
    assert sorted((run.data.tags["nc.arm"], run.info.status) for run in shown) == [
        ("a", "FINISHED"),
        ("b", "FINISHED"),
    ]


def test_an_unreachable_store_is_reported_in_one_line_at_the_end(out, tmp_path, capsys):
    with MlflowSync(out, "http://ann:hunter2@127.0.0.1:9", every=0.2) as sender:
        with RunRecord.create(out, RunIdentity("final", arm="etf", seed=0)) as run:
            run.finish({})
        child = sender._process.pid
        # The list of processes must not show the address with its password.
        assert "hunter2" not in " ".join(psutil.Process(child).cmdline())
    assert sender.report.pending == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "1 run may be missing in MLflow" in lines[0]
    assert f"nc-tools sync {out}" in lines[0]
    assert "hunter2" not in lines[0]
    assert not psutil.pid_exists(child)


def test_a_mistyped_folder_is_reported_and_not_created(tmp_path):
    with pytest.raises(FileNotFoundError, match="typo"):
        MlflowSync(tmp_path / "typo").push()
    assert not (tmp_path / "typo").exists()


def test_a_sending_process_that_hangs_or_ends_is_reported(out, monkeypatch):
    monkeypatch.setattr(mlflow_sync, "SQLITE_PATIENCE_SECONDS", 0.3)
    for source in ("import time; time.sleep(60)", "raise SystemExit(1)"):
        monkeypatch.setattr(mlflow_sync, "SOURCE", source)
        began = time.monotonic()
        report = MlflowSync(out).push()
        assert "ended or stopped responding" in report.error
        assert time.monotonic() - began < 5


def test_a_comparison_written_in_the_block_is_sent_by_the_last_push(out):
    with MlflowSync(out):
        (out / "report").mkdir()
        (out / "report" / "comparison.md").write_text("| arm |")
        (out / "report" / "comparison.json").write_text('{"rows": []}')
    (shown,) = shown_runs(out / "mlflow.db")
    assert shown.data.tags["mlflow.note.content"] == "| arm |"


def test_the_store_is_made_before_there_is_a_run_to_show_and_what_is_new_is_sent_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "out"
    with MlflowSync(out, every=1000) as sync:
        with RunRecord.create(out, RunIdentity("holdout", arm="etf", seed=0)) as run:
            run.finish({})
        sync.push_soon()
        wait_until((out / "mlflow.db").exists, 60)
        for number in (1, 2):
            with RunRecord.create(out, RunIdentity("final", arm="etf", seed=number)) as run:
                run.finish({})
            if number == 2:  # made after run 1 was shown, so after the first call listed its runs
                assert len(shown_runs(out / "mlflow.db")) == 1
            sync.push_soon()
            shown = ["FINISHED"] * number
            wait_until(lambda shown=shown: [run.info.status for run in shown_runs(out / "mlflow.db")] == shown, 60)
    assert sync.report.error is None


def test_a_command_that_fails_before_its_first_run_leaves_no_store(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with MlflowSync(tmp_path / "out", every=0.2):
        time.sleep(1)
    assert not (tmp_path / "out" / "mlflow.db").exists()
