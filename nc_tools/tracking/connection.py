"""Open an MLflow store. A SQLite file is made or upgraded as a copy, so that a killed process leaves no broken file."""

import sqlite3
import uuid
from contextlib import closing
from functools import cache
from pathlib import Path

import mlflow
from alembic.script import ScriptDirectory
from filelock import FileLock, Timeout
from mlflow import MlflowClient

from nc_tools.tracking.store import Store, StoreError

# Creating the tables of a new database takes a few seconds; many processes may wait for it in turn.
STORE_LOCK_SECONDS = 120.0
BUSY_SECONDS = 5.0
HEALED = "Rename the file, and nc-tools sync makes a new one from the files of the runs"


def connect(store: Store) -> MlflowClient:
    """Open an MLflow store and return its client, without a change of MLflow's global settings.

    Raises:
        StoreError: If a SQLite file is no complete MLflow store, or another process makes it for too long.
    """
    if store.database is None:
        return _open(store.uri)
    store.database.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{store.database}.lock", timeout=STORE_LOCK_SECONDS):
            if _first(store.database, "SELECT version_num FROM alembic_version") != _newest_version():
                _make(store.database)
            return _open(store.uri)
    except Timeout as error:
        raise StoreError(f"another process has held {store.database}.lock for {STORE_LOCK_SECONDS:.0f} s") from error


@cache  # it reads all of MLflow's scripts
def _newest_version() -> str | None:
    """Return the version of the tables that this MLflow makes."""
    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations")).get_current_head()


def _open(uri: str) -> MlflowClient:
    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)
    return client


def _make(database: Path) -> None:
    """Make or upgrade the tables in a copy of a SQLite file, and move the copy into place when it is complete.

    MLflow itself changes the file in place, and a process that is killed meanwhile leaves tables that no version of
    MLflow can open.
    """
    for path in database.parent.glob(f"{database.name}.new-*"):
        path.unlink()  # left by a killed process: under the lock no other process makes one
    copy = database.with_name(f"{database.name}.new-{uuid.uuid4().hex}")
    try:
        if database.exists():
            with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        _open(f"sqlite:///{copy}")
    except Exception as error:
        if not database.exists():
            raise
        if _first(database, "SELECT run_uuid FROM runs LIMIT 1") is not None:
            reason = str(error).strip().splitlines()[0][:200]
            raise StoreError(
                f"the MLflow store {database} cannot be opened or upgraded ({reason}). {HEALED}"
            ) from error
        database.replace(f"{database}.incomplete")  # MLflow was killed while it made the file, which holds no run yet
        _make(database)
    else:
        copy.replace(database)


def _first(database: Path, query: str) -> str | None:
    """Return the first value that a query of a SQLite file gives; None if there is no such file, table or row."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as connection:
            row = connection.execute(query).fetchone()
    except sqlite3.Error as error:
        if "no such table" in str(error):
            return None
        advice = "" if "locked" in str(error) else f". {HEALED}"
        raise StoreError(f"the MLflow store {database} cannot be read ({error}){advice}") from error
    return None if row is None else str(row[0])
