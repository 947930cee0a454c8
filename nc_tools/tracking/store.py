"""Where MLflow keeps its runs: the address, whether it answers, and how it is first opened."""

import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nc_tools.run_records.redact import redact, redact_known

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_SECONDS = 2.0
# Migrating a fresh database takes about 1.5 s; many processes may wait for it in turn.
OPEN_SECONDS = 60.0
DEFAULT_KEY = "default"


class StoreError(Exception):
    """The store cannot be used as it is; the message says why and what to do."""


@dataclass(frozen=True)
class Store:
    """One MLflow store.

    Attributes:
        uri: Its tracking address, absolute. May hold credentials: what is shown is ``label``, never this.
        key: Under which a record notes what this store has. The default store is noted as such and not by its
            path, so that an output folder may be moved.
        database: The file of a SQLite store.
        artifacts: Folder for artifacts, where the store does not manage them itself.
    """

    uri: str
    key: str
    database: Path | None
    artifacts: Path | None

    @property
    def label(self) -> str:
        """The address without credentials."""
        return redact(self.uri)

    @property
    def is_server(self) -> bool:
        """Whether the store is reached over HTTP."""
        return self.uri.startswith(("http://", "https://"))

    def explain(self, error: BaseException) -> str:
        """One line about ``error`` without credentials."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return redact_known(lines[0], self.uri)[:300]

    def unreachable(self) -> str | None:
        """Say in a sentence why nothing can be sent now; None if the store answers.

        Asked before MLflow is: left to itself MLflow tries a dead server for minutes and a locked database
        for 20 s per call.
        """
        if self.is_server:
            return self._server_is_silent()
        if self.database is not None and self.database.exists():
            return self._database_is_locked(self.database)
        return None

    def _server_is_silent(self) -> str | None:
        import requests

        address = urlsplit(self.uri)
        bare = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}/health"
        try:
            requests.get(bare, timeout=PROBE_SECONDS, allow_redirects=False)
        except requests.exceptions.SSLError:
            return None  # it answers; whether its certificate will do is for MLflow's own settings to say
        except requests.exceptions.RequestException as error:
            return f"the tracking server {self.label} does not answer ({type(error).__name__})"
        return None

    def _database_is_locked(self, path: Path) -> str | None:
        try:
            with closing(sqlite3.connect(path, timeout=PROBE_SECONDS, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            return f"the MLflow store {path} cannot be written now ({error})"
        return None


def resolve_store(root: Path, tracking_uri: str | None) -> Store:
    """Choose the store: ``tracking_uri``, else MLFLOW_TRACKING_URI, else a SQLite file in the output folder.

    Nothing depends on the working directory later on: a relative SQLite path is taken against the present
    one, once.

    Raises:
        ValueError: If the address is a plain folder, which MLflow no longer writes to, or a SQLite file whose
            path no address can express.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    default = root / "mlflow.db"
    path = _sqlite_path(uri) if uri else default
    if path is not None:
        # Versions of SQLAlchemy disagree on whether "%20" in an address is a blank, and MLflow on both.
        if odd := sorted(set(str(path)) & set("%?#")):
            raise ValueError(
                f"the path of MLflow's SQLite file must be free of {' '.join(odd)}, got {path}; "
                "choose another output folder, or give the tracking address of another store"
            )
        key = DEFAULT_KEY if path == default else f"sqlite:///{path}"
        return Store(f"sqlite:///{path}", key, path, path.parent / "artifacts")
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file") and not uri.startswith("databricks"):
        instead = Path(uri.removeprefix("file:")) / "mlflow.db"
        raise ValueError(
            f"the tracking address must be a server or a database, got the folder {redact(uri)}; "
            f"MLflow no longer writes to folders: give sqlite:///{instead}"
        )
    manages_artifacts = scheme in ("", "http", "https", "databricks", "uc")
    return Store(uri, redact(uri), None, None if manages_artifacts else root / "artifacts")


def _sqlite_path(uri: str) -> Path | None:
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(\?.*)?", uri)
    return Path(found.group(1)).expanduser().resolve() if found else None


def connect(store: Store) -> "MlflowClient":
    """Open the store and return a client of it; MLflow's global settings stay as they are.

    A fresh SQLite file is opened by one process at a time: MLflow's migrations crash when several run at once.

    Raises:
        StoreError: If the store cannot be opened.
    """
    from filelock import FileLock, Timeout
    from mlflow import MlflowClient

    if store.database is None:
        return _opened(MlflowClient, store)
    store.database.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{store.database}.lock", timeout=OPEN_SECONDS):
            return _opened(MlflowClient, store)
    except Timeout as error:
        raise StoreError(f"another process has been opening {store.database} for {OPEN_SECONDS:.0f} s") from error


def _opened(client_type: "type[MlflowClient]", store: Store) -> "MlflowClient":
    try:
        client = client_type(tracking_uri=store.uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # MLflow, SQLAlchemy, alembic and requests each have errors of their own
        raise StoreError(f"the MLflow store {store.label} cannot be opened: {store.explain(error)}") from error
    return client
