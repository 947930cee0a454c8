"""Sending records to a real MLflow server that is down at first, ends in the middle and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from support.mlflow_store import fresh_store

from nc_tools.run_records import RunIdentity, RunRecord
from nc_tools.tracking import direct_links
from nc_tools.tracking.live import LIMITS
from nc_tools.tracking.store import resolve_store
from nc_tools.tracking.sync_once import Synchronizer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One MLflow server on the loopback interface, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "served")]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env={
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.folder,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{self.uri}/health", timeout=1).ok:
                    return
            except requests.RequestException:
                time.sleep(0.1)
        self.kill()
        pytest.fail("the MLflow server did not start")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path, tmp_path_factory):
    fresh_store(tmp_path / "server.db", tmp_path_factory)
    loopback = Server(tmp_path)
    yield loopback
    loopback.kill()


@pytest.mark.slow
def test_a_server_that_comes_back_receives_everything_once(tmp_path, server, monkeypatch):
    for name, value in LIMITS.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "out"
    for seed in range(3):
        with RunRecord.create(root, RunIdentity("final", arm="etf", seed=seed, experiment="q")) as run:
            for step in range(3):
                run.log(step, {"train/loss": float("nan") if step == 1 else step})
            (run.figures / "nc.png").write_bytes(b"png")
            run.finish({"test/gen/accuracy": 0.5})
    address = server.uri.replace("http://", "http://ann:secret@")
    sync = Synchronizer(root, resolve_store(root, address), None)

    began = time.monotonic()
    report = sync.push()
    assert (report.sent, report.pending) == (0, 3)
    assert "does not answer" in report.error
    assert "secret" not in report.error
    assert time.monotonic() - began < 5

    server.start()
    report = sync.push(beat=server.kill)
    assert (report.sent, report.pending) == (1, 2)
    assert "does not answer" in report.error

    server.start()
    assert sync.push().sent == 2
    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("q")
    shown = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["nc.seed"] for run in shown) == ["0", "1", "2"]
    for run in shown:
        assert run.info.status == "FINISHED"
        assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [0, 1, 2]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "figures",
            "run.json",
            "final.json",
        }
    assert all("secret" not in path.read_text(errors="replace") for path in root.rglob("*") if path.is_file())
    (page,) = direct_links(root, address)
    assert page == f"MLflow: http://127.0.0.1:{server.port}/#/experiments/1/runs?compareRunsMode=CHART"
    assert Synchronizer(root, resolve_store(root, address), None).push().sent == 0
