"""The address of the MLflow store."""

import re

import pytest

from nc_tools.tracking import MlflowSync
from nc_tools.tracking.store import name_in_mlflow, resolve_store


def test_the_store_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    default = resolve_store(tmp_path / "out", None)
    assert default.uri == f"sqlite:///{tmp_path}/out/mlflow.db"
    assert default.artifacts == tmp_path / "out" / "artifacts"
    monkeypatch.chdir(tmp_path)
    assert resolve_store(tmp_path / "out", "sqlite:///mine.db").uri == f"sqlite:///{tmp_path}/mine.db"
    assert resolve_store(tmp_path, "sqlite:///mlflow.db") == resolve_store(tmp_path, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:pw@host:5000")
    server = resolve_store(tmp_path / "out", None)
    assert server.uri == "http://ann:pw@host:5000"
    assert (server.address, server.artifacts) == ("http://host:5000", None)
    assert resolve_store(tmp_path, "sqlite:////given.db").uri == "sqlite:////given.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:/tmp/mlruns", "/tmp/mlruns"])
def test_a_folder_as_store_is_an_error(tmp_path, uri):
    with pytest.raises(ValueError, match=r"server or a database.*mlflow\.db"):
        resolve_store(tmp_path, uri)


def test_a_path_with_a_percent_sign_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"must not contain %, got .*50%"):
        resolve_store(tmp_path / "50%", None)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_an_error(tmp_path, uri):
    with pytest.raises(ValueError, match=r"must be a file, got the database in memory .*: give sqlite:///.*mlflow\.db"):
        resolve_store(tmp_path, uri)


def test_the_name_in_mlflow_moves_with_the_folder(tmp_path):
    root = tmp_path / "out"
    root.mkdir()
    name = name_in_mlflow(root)
    assert name_in_mlflow(root.rename(tmp_path / "moved")) == name


@pytest.mark.parametrize("note", ["no json", "{}", '{"folder": "a%"}', '{"folder": 3}'])
def test_a_damaged_note_is_replaced(tmp_path, note):
    (tmp_path / "mlflow.json").write_text(note)
    name = name_in_mlflow(tmp_path)
    assert re.fullmatch("[0-9a-f]{12}", name)
    assert name_in_mlflow(tmp_path) == name


def test_a_sign_in_the_path_is_no_password(tmp_path):
    root = tmp_path / "a@b"
    assert resolve_store(root, None).address == f"sqlite:///{root}/mlflow.db"
    assert MlflowSync(root).links() == [f"MLflow: nc-tools ui {root}"]


def test_the_printed_commands_name_the_store_without_a_password(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    address = "postgresql://ann:secret@host/db"
    (line,) = MlflowSync("out", f"{address}?sslmode=require").links()
    login = " (with user name and password in the address)"
    assert line == f"MLflow: nc-tools ui out --tracking-uri postgresql://host/db{login}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    sync = MlflowSync("out")
    assert sync.links() == ["MLflow: nc-tools ui out"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert sync.links() == [f"MLflow: nc-tools ui {tmp_path / 'out'}"]
