"""The address of the MLflow store."""

import pytest

from nc_tools.tracking.store import resolve_store


def test_the_store_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    default = resolve_store(tmp_path / "out", None)
    assert default.uri == f"sqlite:///{tmp_path}/out/mlflow.db"
    assert default.artifacts == tmp_path / "out" / "artifacts"
    monkeypatch.chdir(tmp_path)
    assert resolve_store(tmp_path / "out", "sqlite:///mine.db").uri == f"sqlite:///{tmp_path}/mine.db"
    assert resolve_store(tmp_path, "sqlite:///mlflow.db").key == resolve_store(tmp_path, None).key == "default"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:pw@host:5000")
    server = resolve_store(tmp_path / "out", None)
    assert server.uri == "http://ann:pw@host:5000"
    assert (server.key, server.artifacts) == ("http://***@host:5000", None)
    assert resolve_store(tmp_path, "sqlite:////given.db").uri == "sqlite:////given.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:/tmp/mlruns", "/tmp/mlruns"])
def test_a_folder_as_store_is_an_error(tmp_path, uri):
    with pytest.raises(ValueError, match=r"server or a database.*mlflow\.db"):
        resolve_store(tmp_path, uri)


def test_a_path_with_a_percent_sign_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"must not contain %, got .*50%"):
        resolve_store(tmp_path / "50%", None)
