"""Opening an MLflow store in SQLite: made in one step whatever is killed, and healed or explained if it is broken."""

import shutil
import sqlite3
from contextlib import closing, contextmanager

import pytest
from alembic import command
from mlflow import MlflowClient
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from support.killed_process import killed_before
from support.mlflow_store import fresh_store

from nc_tools.tracking.connection import connect
from nc_tools.tracking.store import StoreError, resolve_store

pytestmark = pytest.mark.slow

BEFORE_WEBHOOKS = "de4033877273"
OLD_ROWS = {
    "experiments": {"experiment_id": 7, "name": "x", "lifecycle_stage": "active"},
    "runs": {"run_uuid": "r", "experiment_id": 7, "lifecycle_stage": "active", "user_id": "u", "status": "FINISHED",
             "start_time": 1},
}  # fmt: skip


@contextmanager
def statements(count):
    """Count the statements that MLflow sends to a database."""
    event.listen(Engine, "before_cursor_execute", lambda *_: count())
    yield


def usable(store):
    """Open a store in a process of its own, as MLflow keeps open what it has opened, and write into it."""
    return not killed_before(10**6, lambda: connect(store).create_run("0"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [40, 350])
def test_a_process_that_is_killed_while_it_makes_a_store_leaves_none(tmp_path, number):
    store = resolve_store(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    assert killed_before(number, lambda: connect(store), statements)
    assert not store.database.exists()
    assert usable(store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.slow
def test_a_store_in_whose_making_mlflow_itself_was_killed_is_healed(tmp_path):
    store = resolve_store(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    assert killed_before(40, lambda: MlflowClient(tracking_uri=store.uri).search_experiments(), statements)
    assert store.database.exists()
    assert usable(store)
    assert (tmp_path / "mlflow.db.incomplete").exists()


@pytest.fixture
def store_with_a_run(tmp_path, tmp_path_factory):
    fresh_store(tmp_path / "made.db", tmp_path_factory)
    MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/made.db").create_run("0")
    shutil.copy(tmp_path / "made.db", tmp_path / "mlflow.db")
    return resolve_store(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")


def changed(store, *statements):
    with closing(sqlite3.connect(store.database)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


@pytest.mark.parametrize(
    "damage",
    [
        ["UPDATE alembic_version SET version_num = 'of the future'"],
        pytest.param(["DELETE FROM alembic_version", "DROP TABLE latest_metrics"], marks=pytest.mark.slow),
    ],
)
def test_a_store_with_runs_that_cannot_be_opened_is_explained_and_left_alone(store_with_a_run, damage):
    with closing(sqlite3.connect(store_with_a_run.database)) as database:
        for statement in damage:
            database.execute(statement)
        database.commit()
    before = store_with_a_run.database.read_bytes()
    with pytest.raises(StoreError, match=r"cannot be opened or upgraded \(.+\). Rename the file, and nc-tools sync"):
        connect(store_with_a_run)
    assert store_with_a_run.database.read_bytes() == before
    store_with_a_run.database.rename(store_with_a_run.database.with_name("renamed.db"))
    assert usable(store_with_a_run)  # the message says so


def test_a_file_that_is_no_database_is_explained(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(StoreError, match=r"cannot be read \(file is not a database\). Rename the file"):
        connect(resolve_store(tmp_path, f"sqlite:///{tmp_path}/mlflow.db"))


@pytest.mark.slow
def test_an_older_store_is_upgraded_in_one_step_with_its_runs(tmp_path):
    store = resolve_store(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    engine = create_engine(store.uri)
    InitialBase.metadata.create_all(engine)
    with engine.begin() as connection:
        config = _get_alembic_config(store.uri)
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE_WEBHOOKS)
        for table, row in OLD_ROWS.items():
            columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), row)
    engine.dispose()
    before = store.database.read_bytes()
    assert killed_before(100, lambda: connect(store), statements)
    assert store.database.read_bytes() == before
    assert [run.info.run_id for run in connect(store).search_runs(["7"])] == ["r"]
