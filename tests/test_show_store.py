"""nc-tools ui: MLflow on the store of an output folder, and the pages that are printed."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
from rich.console import Console
from support.faulty_servers import LossyProxy, MlflowServer, free_port, serving
from support.mlflow_store import client, complete, fresh_store, runs

import nc_tools
from nc_tools.cli import main
from nc_tools.comparison.closing_report import print_links
from nc_tools.tracking import MlflowSync, mlflow_sync
from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.no_mlflow import NO_MLFLOW, sync_unless_off
from nc_tools.tracking.store import resolve_store

SOURCE = Path(nc_tools.__file__).resolve().parents[1]


@pytest.fixture
def out(tmp_path, tmp_path_factory, monkeypatch):
    """An output folder with two arms and a report, and its store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in mlflow_sync.SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "out"
    for arm in ("linear", "etf"):
        complete(root, arm=arm)
    (root / "report").mkdir()
    (root / "report" / "comparison.json").write_text(json.dumps({"schema": 1, "primary": "acc", "rows": []}))
    (root / "report" / "comparison.html").write_text("<p>report</p>")
    fresh_store(root / "mlflow.db", tmp_path_factory)
    return root


def refusal(capsys, *words):
    """Run nc-tools ui, which must refuse in one line, and return that line."""
    with pytest.raises(SystemExit) as end:
        main(["ui", *words])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_mlflow_is_shown_and_ends_with_a_signal(out, number):
    assert Mirror(out, resolve_store(out, None)).push().error is None
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "nc_tools.cli", "ui", "out", "--port", str(port), "--no-browser"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        report, curves, last = (process.stdout.readline().strip() for _ in range(3))
        (shown,) = [run.info.run_id for run in runs(out) if run.data.tags["nc.kind"] == "comparison"]
        address = f"http://127.0.0.1:{port}"
        page = f"{address}/#/experiments/1/runs"
        mode = "workflowType=machine_learning"
        assert report == f"MLflow, report: {page}/{shown}/artifacts/report/comparison.html?{mode}"
        assert curves == f"MLflow, curves: {page}?viewStateShareKey=nc_tools&compareRunsMode=CHART&{mode}"
        assert last == "Ctrl-C ends MLflow."
        content = {"run_uuid": shown, "path": "report/comparison.html"}
        assert requests.get(f"{address}/get-artifact", content, timeout=60).text == "<p>report</p>"
        view = json.loads(client(out).get_experiment("1").tags["mlflow.sharedViewState.nc_tools"])
        assert view["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "nc.arm"}]
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        addresses = {connection.laddr for pid in family for connection in psutil.Process(pid).net_connections("inet")}
        assert {ip for ip, used in addresses if used == port} == {"127.0.0.1"}
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=60) == (0 if number == signal.SIGINT else 143)
        assert time.monotonic() - began < 30
        assert not [pid for pid in family if psutil.pid_exists(pid)]


def test_a_folder_or_store_that_cannot_be_shown_is_explained(out, capsys):
    assert "the output folder nowhere does not exist" in refusal(capsys, "nowhere")
    assert f"the MLflow store sqlite:///{out}/mlflow.db has no run of out: upload them with: nc-tools sync out\n" in (
        refusal(capsys, "out")
    )
    (out / "mlflow.db").write_text("no database")
    assert "cannot be read (file is not a database). Rename the file, and nc-tools sync makes a new one" in (
        refusal(capsys, "out")
    )
    (out / "mlflow.db").unlink()
    assert "there is no MLflow store" in refusal(capsys, "out")
    assert not (out / "mlflow.db").exists()


def test_a_port_in_use_is_named_and_without_a_port_another_one_is_taken(out, capsys):
    assert Mirror(out, resolve_store(out, None)).push().error is None
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        assert f"port {taken} cannot be used, or is in use by another program" in refusal(
            capsys, "out", "--port", taken
        )
    with pytest.raises(SystemExit):
        main(["ui", "out", "--port", "99999"])
    assert "must be a number from 1 to 65535, got '99999'" in capsys.readouterr().err


def with_login(server):
    """Return a server's answers for requests with the right login, and 401 for others."""
    proxy = LossyProxy(server)

    def answer(handler):
        if handler.headers.get("Authorization") == "Basic YW5uOmh1bnRlcjI=":  # ann:hunter2
            proxy(handler)
            return
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", 'Basic realm="mlflow"')
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def test_a_port_for_a_server_that_runs_already_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["ui", str(tmp_path), "--tracking-uri", "http://127.0.0.1:9", "--port", "5001"])
    assert "http://127.0.0.1:9 runs already: leave it out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_server_with_a_password_takes_it_from_the_environment_and_it_is_written_nowhere(
    out, tmp_path, tmp_path_factory, monkeypatch, capsys
):
    fresh_store(tmp_path / "server.db", tmp_path_factory)
    server = MlflowServer(tmp_path)
    server.start()
    try:
        with serving(with_login(server.uri)) as uri:
            sync = MlflowSync("out", uri)
            refused = f"the MLflow server {uri} refuses the login: set MLFLOW_TRACKING_USERNAME and "
            assert sync.push().error.startswith(refused)
            assert refused in refusal(capsys, "out", "--tracking-uri", uri)
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
            assert sync.push().error is None
            main(["ui", "out", "--tracking-uri", uri, "--no-browser"])
            assert capsys.readouterr().out.splitlines() == sync.links()
            assert len(sync.links()) == 2
    finally:
        server.kill()
    assert all(b"hunter2" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_folder_whose_runs_stay_on_disk_says_how_they_get_to_mlflow(tmp_path, monkeypatch):
    shown = io.StringIO()
    with sync_unless_off(tmp_path / "out", NO_MLFLOW) as sync:
        assert sync is None
    print_links(tmp_path / "out", Console(file=shown), sync)
    assert f"The runs are not in MLflow. To send them: nc-tools sync {tmp_path}/out" in shown.getvalue()
    assert not (tmp_path / "out").exists()
