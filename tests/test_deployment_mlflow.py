"""An exported MLflow model: no pickle, its signature, and a server that answers with the run's own probabilities."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support.experiment_runs import job_of, make
from torch import Tensor

from nc_tools.cli import main
from nc_tools.deployment import Predictor, export_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    holdout, _ = make(job_of(root, "holdout", "etf"))
    final, _ = make(job_of(root, "final", "etf", holdout_run=holdout.run))
    assert final.run is not None
    return final.run  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(export_run(run, "mlflow", tmp_path_factory.mktemp("export") / "e"))


def images(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (number, 1, 8, 8), dtype=torch.uint8, generator=generator)


def test_the_model_holds_no_pickle_and_says_what_it_takes(model: Path) -> None:
    described = yaml.safe_load((model / "MLmodel").read_text())
    inputs, outputs = (json.loads(described["signature"][side]) for side in ("inputs", "outputs"))
    assert inputs[0]["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 1, 8, 8]}
    assert outputs[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 7]}
    assert len(described["metadata"]["classes"]) == 7
    assert described["metadata"]["preprocessing"]["input"]["type"] == "uint8"
    files = [path for path in model.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pth", ".pt", ".bin")]
    assert {"README.md", "classes.json", "preprocessing.json"} <= {path.name for path in files}
    requirements = (model / "requirements.txt").read_text()
    assert f"torch=={torch.__version__.split('+')[0]}" in requirements
    assert "nc_tools" not in requirements


def test_mlflow_answers_with_the_runs_probabilities(run: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    loaded = mlflow.pyfunc.load_model(str(model))
    for number in (1, 5):
        expected = Predictor.load(run)(images(number)).probabilities.numpy()
        assert np.allclose(loaded.predict(images(number).numpy()), expected, atol=1e-5)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def answered(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.read()


def test_a_server_answers_with_the_runs_probabilities(run: Path, model: Path, tmp_path: Path) -> None:
    port = free_port()
    command = ["-m", "mlflow", "models", "serve", "-m", str(model), "-p", str(port), "-h", "127.0.0.1"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command, "--env-manager", "local", "--workers", "1"], stdout=log, stderr=log,
            cwd=tmp_path, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                answered(f"http://127.0.0.1:{port}/ping")
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.5)
        reply = json.loads(answered(f"http://127.0.0.1:{port}/invocations", {"inputs": images(3).tolist()}))
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
    expected = Predictor.load(run)(images(3)).probabilities.numpy()
    assert np.allclose(reply["predictions"], expected, atol=1e-5)


@pytest.mark.parametrize("address", [None, "sqlite:///elsewhere.db"])
def test_a_model_is_registered_and_mlflow_left_as_it_was(
    address: str | None, run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(address)
    for variable in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    assert before == address
    arguments = ["export", str(run), "--to", "mlflow", "--register", "digits-etf"]
    store = f"sqlite:///{tmp_path / 'store.db'}"
    for number in (1, 2):
        main([*arguments, "--out", str(tmp_path / f"e{number}"), "--tracking-uri", store])
        assert f"exported: models:/digits-etf/{number}" in capsys.readouterr().out
    # Not even the address that MLflow uses where nobody gives one: later runs would go to the current folder.
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
    mlflow.set_tracking_uri(None)
    assert not {"MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"} & set(os.environ)
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient(tracking_uri=store, registry_uri=store)
    version = client.get_model_version("digits-etf", "2")
    source = client.get_model_version_download_uri("digits-etf", "2")
    assert str(tmp_path) in source or version.source.startswith("models:/")
    assert client.search_experiments(filter_string="name = 'exported models'")
    assert not any((tmp_path / name).exists() for name in ("mlruns", "mlflow.db", "artifacts/exported models"))


def test_a_model_is_not_registered_into_a_run_of_somebody_else(run: Path, tmp_path: Path, capsys: Any) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'own.db'}")
    try:
        with mlflow.start_run(run_name="mine"), pytest.raises(SystemExit):
            main(["export", str(run), "--to", "mlflow", "--register", "x", "--out", str(tmp_path / "e")])
        assert "in MLflow while the run 'mine' is active" in capsys.readouterr().err
    finally:
        mlflow.set_tracking_uri(None)


def test_a_store_that_does_not_answer_is_one_sentence(run: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "bad.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(SystemExit) as end:
        main(["export", str(run), "--to", "mlflow", "--register", "x", "--out", str(tmp_path / "e"),
              "--tracking-uri", f"sqlite:///{tmp_path / 'bad.db'}"])  # fmt: skip
    assert end.value.code == 2
    assert "x cannot be registered" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()  # so that the same command can be given again


def test_the_model_of_each_final_run_is_logged_once_with_its_run(
    run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    shutil.copytree(run.parent, tmp_path / "out" / "runs")
    main(["sync", "out", "--log-models"])
    printed = capsys.readouterr()
    assert "1 model logged" in printed.out
    assert "artifacts" not in printed.err  # no bar of MLflow for each file that it copies
    uri = f"sqlite:///{tmp_path}/out/mlflow.db"
    client = mlflow.MlflowClient(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name != "Default"]
    (shown,) = client.search_runs([experiment.experiment_id])
    (output,) = shown.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert (shown.info.status, logged.status) == ("FINISHED", "READY")
    assert logged.source_run_id == shown.info.run_id
    assert logged.params == shown.data.params
    assert logged.name == shown.info.run_name
    assert logged.tags["mlflow.note.content"].startswith("# Model card: ")
    (data,) = {(value.dataset_name, value.dataset_digest) for value in logged.metrics}
    assert data in {(used.dataset.name, used.dataset.digest) for used in shown.inputs.dataset_inputs}
    assert {value.key for value in logged.metrics} == {key for key in shown.data.metrics if key.startswith("test/")}
    assert shown.info.end_time == json.loads((run / "status.json").read_text())["ended_ms"]
    mlflow.set_tracking_uri(uri)
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    finally:
        mlflow.set_tracking_uri(None)
    assert loaded.metadata.signature is not None
    expected = Predictor.load(run)(images(3)).probabilities.numpy()
    assert np.allclose(loaded.predict(images(3).numpy()), expected, atol=1e-5)
    main(["sync", "out", "--log-models"])
    assert "0 models logged" in capsys.readouterr().out
    assert len(client.search_logged_models([experiment.experiment_id])) == 1
    assert not [path.name for path in tmp_path.iterdir() if path.name != "out"]
