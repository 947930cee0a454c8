"""Sending records to servers that are down, refuse, answer slowly, lose answers, or end in the middle."""

import shlex
import threading
import time

import pytest
from mlflow import MlflowClient
from support.faulty_servers import LossyProxy, MlflowServer, free_port, hang_up, serving, too_many_requests, trickle
from support.mlflow_store import fresh_store

from nc_tools import cli
from nc_tools.run_records import RunIdentity, RunRecord
from nc_tools.tracking import MlflowSync, mlflow_sync
from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.store import resolve_store

pytestmark = pytest.mark.slow

FILES = {"figures", "run.json", "final.json", "metrics.jsonl", "status.json"}


def record_runs(root, seeds, experiment="q"):
    for seed in seeds:
        with RunRecord.create(root, RunIdentity("final", arm="etf", seed=seed, experiment=experiment)) as run:
            for step in range(3):
                run.log(step, {"train/loss": float("nan") if step == 1 else step})
            (run.figures / "nc.png").write_bytes(b"png")
            run.finish({"test/gen/accuracy": 0.5})


def assert_all_there(uri, seeds, experiment="q"):
    client = MlflowClient(tracking_uri=uri)
    shown = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
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
    record_runs(tmp_path / "out", range(2))
    return tmp_path / "out"


@pytest.fixture
def no_wait(monkeypatch):
    """Let MLflow try again at once, in tests whose promise is not how long something takes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of one MLflow server for all tests, each with an experiment of its own."""
    folder = tmp_path_factory.mktemp("server")
    fresh_store(folder / "server.db", tmp_path_factory)
    loopback = MlflowServer(folder)
    loopback.start()
    yield loopback.uri
    loopback.kill()


def test_a_server_that_refuses_requests_misses_every_run(root, no_wait):
    with serving(too_many_requests) as uri:
        sync = MlflowSync(root, uri)
        report = sync.push()
        assert (report.sent, report.pending) == (0, 2)
        assert report.error == f"the MLflow server {uri} refuses requests now (too many 429 error responses)"
        assert sync.advice().startswith("2 runs may be missing in MLflow: the MLflow server")


@pytest.mark.slow
def test_a_server_whose_answer_never_ends_misses_every_run(root, monkeypatch):
    asked = threading.Event()

    def endless(handler):
        asked.set()
        trickle(handler)

    with serving(endless) as uri:
        sync = MlflowSync(root, uri, every=0.2)
        sync.start()
        assert asked.wait(60)
        monkeypatch.setattr(mlflow_sync, "PATIENCE_SECONDS", 3.0)
        report = sync.stop()
        assert (report.sent, report.pending) == (0, 2)
        assert report.error == "the upload to MLflow did not end in time"


@pytest.mark.slow
def test_a_server_that_is_down_costs_seconds_and_no_minutes(root):
    mirror = Mirror(root, resolve_store(root, f"http://127.0.0.1:{free_port()}"))
    began = time.monotonic()
    report = mirror.push()
    assert (report.sent, report.pending) == (0, 2)
    assert time.monotonic() - began < 10


def test_the_printed_command_goes_to_the_server_that_was_down(root, no_wait, capsys, monkeypatch):
    dead = f"http://127.0.0.1:{free_port()}"
    sync = MlflowSync(root, dead)
    report = sync.push()
    assert (report.sent, report.pending) == (0, 2)
    assert report.error == f"the MLflow server {dead} does not answer (ConnectionError): start it, or check its address"
    command = shlex.split(sync.advice().partition("with: ")[2])
    assert command == ["nc-tools", "sync", str(root), "--tracking-uri", dead]
    with pytest.raises(SystemExit):
        cli.main(command[1:])
    assert f"the MLflow server {dead} does not answer" in capsys.readouterr().err
    assert not (root / "mlflow.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    assert shlex.split(sync.advice().partition("with: ")[2]) == ["nc-tools", "sync", str(root)]


def test_a_password_is_neither_printed_nor_written(root, no_wait):
    sync = MlflowSync(root, f"http://ann:hunter2@127.0.0.1:{free_port()}")
    report = sync.push()
    assert report.pending == 2
    assert "hunter2" not in sync.advice()
    assert "with user name and password in the address" in sync.advice()
    assert all("hunter2" not in path.read_text(errors="replace") for path in root.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_server_that_comes_back_receives_everything_once(root, server, no_wait):
    up, proxy = threading.Event(), LossyProxy(server)
    with serving(lambda handler: proxy(handler) if up.is_set() else hang_up(handler)) as uri:
        address = uri.replace("http://", "http://ann:secret@")
        mirror = Mirror(root, resolve_store(root, address))
        report = mirror.push()
        assert (report.sent, report.pending) == (0, 2)

        up.set()
        report = mirror.push(lambda report: report.sent and up.clear())
        assert (report.sent, report.pending) == (1, 1)
        assert "does not answer" in report.error

        up.set()
        assert mirror.push().sent == 1
        assert_all_there(server, range(2))
        again = MlflowSync(root, address)
        assert again.push().sent == 0
    number = MlflowClient(tracking_uri=server).get_experiment_by_name("q").experiment_id
    query = "viewStateShareKey=nc_tools&compareRunsMode=CHART&workflowType=machine_learning"
    assert again.links() == [f"MLflow, curves: {uri}/#/experiments/{number}/runs?{query}"]
    assert all("secret" not in path.read_text(errors="replace") for path in root.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["every answer to runs/create", "a third of all answers", "a slow server"])
def test_no_run_is_shown_twice_when_answers_are_lost(tmp_path, root, server, no_wait, case):
    root = tmp_path / "lost"
    record_runs(root, range(2), case)

    def lose(_, path, __):
        return case == "every answer to runs/create" and path.endswith("runs/create")

    share = {"a third of all answers": 1 / 3}.get(case, 0.0)
    proxy = LossyProxy(server, share, seed=1, lose=lose, delay=0.05 * (case == "a slow server"))
    with serving(proxy) as uri:
        with MlflowSync(root, uri, every=0.2):
            record_runs(root, range(2, 4), case)
        for _ in range(30):
            mirror = Mirror(root, resolve_store(root, uri))  # which knows nothing of the last one, as a new process
            if mirror.push().error is None:
                break
        assert mirror.report.error is None
    assert proxy.lost > 0 or case == "a slow server"
    assert_all_there(server, range(4), case)
