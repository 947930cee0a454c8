"""The MLflow store: its address, whether it can be reached, and how it is opened."""

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
# Creating the tables of a new database takes about 1.5 s; many processes may wait for it in turn.
OPEN_SECONDS = 60.0
DEFAULT_KEY = "default"


class StoreError(Exception):
    """Raised if the MLflow store cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Store:
    """An MLflow store: the server or database that holds experiments and runs.

    Attributes:
        uri: Absolute tracking address. It may contain credentials, so show ``label`` instead.
        key: Name under which a record saves what this store has. The default store has a fixed name, not its path, so
            that an output folder can be moved.
        database: The file of a SQLite store; None for others.
        artifacts: Folder for artifacts; None if the store manages them itself.
    """

    uri: str
    key: str
    database: Path | None
    artifacts: Path | None

    @property
    def label(self) -> str:
        """The store's address without credentials."""
        return redact(self.uri)

    @property
    def is_server(self) -> bool:
        """True if the store is reached over HTTP."""
        return self.uri.startswith(("http://", "https://"))

    def explain(self, error: BaseException) -> str:
        """Return the first line of an error's message, without credentials."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return redact_known(lines[0], self.uri)[:300]

    def unreachable(self) -> str | None:
        """Return the reason why the store cannot be reached, in one sentence; None if it answers.

        MLflow itself would try a dead server for minutes, and a locked database for 20 s in each call.
        """
        if self.is_server:
            return self._server_problem()
        if self.database is not None and self.database.exists():
            return self._database_problem(self.database)
        return None

    def _server_problem(self) -> str | None:
        import requests

        address = urlsplit(self.uri)
        bare = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}/health"
        try:
            requests.get(bare, timeout=PROBE_SECONDS, allow_redirects=False)
        except requests.exceptions.SSLError:
            return None  # it answers; MLflow's own settings decide on its certificate
        except requests.exceptions.RequestException as error:
            return (
                f"the MLflow server {self.label} does not answer ({type(error).__name__}): start it, or check its "
                f"address"
            )
        return None

    def _database_problem(self, path: Path) -> str | None:
        try:
            with closing(sqlite3.connect(path, timeout=PROBE_SECONDS, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            return f"the MLflow store {path} cannot be written to now ({error})"
        return None


def resolve_store(root: Path, tracking_uri: str | None) -> Store:
    """Return the MLflow store at ``tracking_uri``, or else MLFLOW_TRACKING_URI, or else a file in the output folder.

    A relative SQLite path is made absolute here, so a later change of the working directory has no effect.

    Raises:
        ValueError: If the address is a folder, which MLflow no longer writes to, or a SQLite file whose path contains
            %, ? or #.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    default = root / "mlflow.db"
    path = _sqlite_path(uri) if uri else default
    if path is not None:
        # Versions of SQLAlchemy disagree on whether "%20" in an address is a blank, and MLflow reads it both ways.
        if forbidden := sorted(set(str(path)) & set("%?#")):
            raise ValueError(
                f"the path of MLflow's SQLite file must not contain {' or '.join(forbidden)}, got {path}: "
                "choose another output folder, or give the address of another store with --tracking-uri"
            )
        key = DEFAULT_KEY if path == default else f"sqlite:///{path}"
        return Store(f"sqlite:///{path}", key, path, path.parent / "artifacts")
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file") and not uri.startswith("databricks"):
        instead = Path(uri.removeprefix("file:")) / "mlflow.db"
        raise ValueError(
            f"the address of the MLflow store must be a server or a database, got the folder {redact(uri)}. "
            f"MLflow no longer writes to folders: give sqlite:///{instead}"
        )
    manages_artifacts = scheme in ("", "http", "https", "databricks", "uc")
    return Store(uri, redact(uri), None, None if manages_artifacts else root / "artifacts")


def _sqlite_path(uri: str) -> Path | None:
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(\?.*)?", uri)
    return Path(match.group(1)).expanduser().resolve() if match else None


def connect(store: Store) -> "MlflowClient":
    """Open an MLflow store and return its client, without a change of MLflow's global settings.

    A lock file lets one process at a time open a SQLite file: MLflow fails if several create its tables at once.

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
        raise StoreError(
            f"another process has held the lock of {store.database} for {OPEN_SECONDS:.0f} s: run nc-tools sync later"
        ) from error


def _opened(client_type: "type[MlflowClient]", store: Store) -> "MlflowClient":
    try:
        client = client_type(tracking_uri=store.uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # MLflow, SQLAlchemy, alembic and requests each have errors of their own
        raise StoreError(f"the MLflow store {store.label} cannot be opened: {store.explain(error)}") from error
    return client
