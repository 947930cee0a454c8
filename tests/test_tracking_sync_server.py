"""Sending records to servers that are down, refuse, answer slowly, lose answers, or end in the middle."""

import shlex
import time

import pytest
from mlflow import MlflowClient
from support.faulty_servers import LossyProxy, MlflowServer, free_port, serving, too_many_requests, trickle
from support.mlflow_store import fresh_store

from nc_tools import cli
from nc_tools.run_records import RunIdentity, RunRecord
from nc_tools.tracking import MlflowSync, mlflow_sync
from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.store import resolve_store

FILES = {"figures", "run.json", "final.json", "metrics.jsonl", "status.json"}


def record_runs(root, seeds):
    for seed in seeds:
        with RunRecord.create(root, RunIdentity("final", arm="etf", seed=seed, experiment="q")) as run:
            for step in range(3):
                run.log(step, {"train/loss": float("nan") if step == 1 else step})
            (run.figures / "nc.png").write_bytes(b"png")
            run.finish({"test/gen/accuracy": 0.5})


def assert_all_there(uri, seeds):
    client = MlflowClient(tracking_uri=uri)
    shown = client.search_runs([client.get_experiment_by_name("q").experiment_id])
    assert sorted(run.data.tags["nc.seed"] for run in shown) == [str(seed) for seed in seeds]
    for run in shown:
        assert run.info.status == "FINISHED"
        assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [0, 1, 2]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == FILES


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in mlflow_sync.SETTINGS.items():
        monkeypatch.setenv(name, value)
    record_runs(tmp_path / "out", range(4))
    return tmp_path / "out"


@pytest.fixture
def server(tmp_path, tmp_path_factory):
    fresh_store(tmp_path / "server.db", tmp_path_factory)
    loopback = MlflowServer(tmp_path)
    yield loopback
    loopback.kill()


def test_a_server_that_refuses_requests_misses_every_run(root):
    with serving(too_many_requests) as uri:
        sync = MlflowSync(root, uri)
        report = sync.push()
        assert (report.sent, report.pending) == (0, 4)
        assert report.error == f"the MLflow server {uri} refuses requests now (too many 429 error responses)"
        assert sync.advice().startswith("4 runs may be missing in MLflow: the MLflow server")


@pytest.mark.slow
def test_a_server_whose_answer_never_ends_misses_every_run(root, monkeypatch):
    monkeypatch.setattr(mlflow_sync, "PATIENCE_SECONDS", 30.0)  # longer than the import of MLflow
    with serving(trickle) as uri:
        report = MlflowSync(root, uri).push()
        assert (report.sent, report.pending) == (0, 4)
        assert report.error == "the upload to MLflow did not end in time"


def test_the_printed_command_goes_to_the_server_that_was_down(root, capsys, monkeypatch):
    dead = f"http://127.0.0.1:{free_port()}"
    sync = MlflowSync(root, dead)
    report = sync.push()
    assert (report.sent, report.pending) == (0, 4)
    assert report.error == f"the MLflow server {dead} does not answer (ConnectionError): start it, or check its address"
    command = shlex.split(sync.advice().partition("with: ")[2])
    assert command == ["nc-tools", "sync", str(root), "--tracking-uri", dead]
    with pytest.raises(SystemExit):
        cli.main(command[1:])
    assert f"the MLflow server {dead} does not answer" in capsys.readouterr().err
    assert not (root / "mlflow.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    assert shlex.split(sync.advice().partition("with: ")[2]) == ["nc-tools", "sync", str(root)]


def test_a_password_is_neither_printed_nor_written(root):
    sync = MlflowSync(root, f"http://ann:hunter2@127.0.0.1:{free_port()}")
    report = sync.push()
    assert report.pending == 4
    assert "hunter2" not in sync.advice()
    assert "with user name and password in the address" in sync.advice()
    assert all("hunter2" not in path.read_text(errors="replace") for path in root.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_server_that_comes_back_receives_everything_once(root, server):
    address = server.uri.replace("http://", "http://ann:secret@")
    mirror = Mirror(root, resolve_store(root, address))
    began = time.monotonic()
    report = mirror.push()
    assert (report.sent, report.pending) == (0, 4)
    assert time.monotonic() - began < 10

    server.start()
    said = []

    def kill_after_one(report):
        said.append(report)
        if report.sent == 1:
            server.kill()

    report = mirror.push(kill_after_one)
    assert (report.sent, report.pending) == (1, 3)
    assert "does not answer" in report.error

    server.start()
    assert mirror.push().sent == 3
    assert_all_there(server.uri, range(4))
    again = MlflowSync(root, address)
    assert again.push().sent == 0
    query = "viewStateShareKey=nc_tools&compareRunsMode=CHART&workflowType=machine_learning"
    assert again.links() == [f"MLflow, curves: {server.uri}/#/experiments/1/runs?{query}"]
    assert all("secret" not in path.read_text(errors="replace") for path in root.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["every answer to runs/create", "a third of all answers", "a slow server"])
def test_no_run_is_shown_twice_when_answers_are_lost(root, server, case):
    server.start()
    created = []

    def lose(_, path, number):
        if path.endswith("runs/create"):
            created.append(number)
        return case == "every answer to runs/create" and path.endswith("runs/create")

    share = {"a third of all answers": 1 / 3}.get(case, 0.0)
    proxy = LossyProxy(server.uri, share, seed=1, lose=lose, delay=0.2 * (case == "a slow server"))
    with serving(proxy) as uri:
        sync = MlflowSync(root, uri, every=0.2)
        with sync:
            record_runs(root, range(4, 6))
        for _ in range(10):
            if sync.push().error is None:
                break
        assert sync.report.error is None
    assert proxy.lost > 0 or case == "a slow server"
    assert_all_there(server.uri, range(6))
