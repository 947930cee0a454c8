"""The address of the MLflow store."""

import pytest

from nc_tools.tracking import direct_links
from nc_tools.tracking.store import add_experiments, name_in_mlflow, resolve_store, shown_experiments


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


def test_the_name_in_mlflow_and_the_pages_move_with_the_folder(tmp_path):
    root = tmp_path / "out"
    root.mkdir()
    name = name_in_mlflow(root)
    server = resolve_store(root, "http://ann:p/w@host:5000")
    add_experiments(root, server, ["3"])
    add_experiments(root, server, ["3", "1"])
    assert "p/w" not in (root / "mlflow.json").read_text()
    moved = root.rename(tmp_path / "moved")
    assert name_in_mlflow(moved) == name
    assert shown_experiments(moved, server) == ["3", "1"]
    assert shown_experiments(moved, resolve_store(moved, None)) == []


@pytest.mark.parametrize(
    "note", ["no json", "{}", '{"folder": "a%", "experiments": {"": "12"}}', '{"experiments": [3]}']
)
def test_a_damaged_note_is_replaced(tmp_path, note):
    (tmp_path / "mlflow.json").write_text(note)
    store = resolve_store(tmp_path, None)
    assert shown_experiments(tmp_path, store) == []
    assert name_in_mlflow(tmp_path) == name_in_mlflow(tmp_path)
    add_experiments(tmp_path, store, ["7"])
    assert shown_experiments(tmp_path, store) == ["7"]


def test_a_sign_in_the_path_is_no_password(tmp_path):
    root = tmp_path / "a@b"
    assert resolve_store(root, None).address == f"sqlite:///{root}/mlflow.db"
    (line, *_) = direct_links(root)
    assert f"--backend-store-uri sqlite:///{root}/mlflow.db" in line


def test_a_password_is_not_in_the_printed_command(tmp_path):
    (line,) = direct_links(tmp_path, "postgresql://ann:secret@host/db?sslmode=require")
    assert "secret" not in line
    assert "(set MLFLOW_BACKEND_STORE_URI to the address of the store first)" in line
