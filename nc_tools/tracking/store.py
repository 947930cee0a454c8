"""The MLflow store of an output folder: its address, and why it cannot be used."""

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nc_tools.run_records.json_files import read_json_or_problem, write_json
from nc_tools.run_records.redact import redact, redact_known

NOTE = "mlflow.json"


class StoreError(Exception):
    """Raised if the MLflow store cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Store:
    """An MLflow store: the server or database that holds experiments and runs.

    Attributes:
        uri: Absolute tracking address. It may contain credentials, so show ``address`` instead.
        database: The file of a SQLite store; None for others.
        artifacts: Folder for artifacts; None if the store manages them itself.
    """

    uri: str
    database: Path | None
    artifacts: Path | None

    @property
    def address(self) -> str:
        """The address without credentials."""
        return self.uri if self.database else redact(self.uri).replace("***@", "").partition("?")[0]

    @property
    def is_server(self) -> bool:
        """True if the store is reached over HTTP."""
        return self.uri.startswith(("http://", "https://"))

    def unavailable(self, error: BaseException) -> str | None:
        """Return the reason in one sentence if an error means that the store cannot be used now; otherwise None."""
        from requests import exceptions

        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, exceptions.RetryError):
                codes = re.search(r"too many \d+ error responses", str(cause))
                return f"the MLflow server {self.address} refuses requests now ({codes[0] if codes else cause})"
            if isinstance(cause, exceptions.ConnectionError | exceptions.Timeout):
                name = type(cause).__name__
                return f"the MLflow server {self.address} does not answer ({name}): start it, or check its address"
            if getattr(cause, "error_code", "") in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"):
                return (
                    f"the MLflow server {self.address} refuses the login: set MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
                )
            if isinstance(cause, StoreError) or getattr(cause, "error_code", "") == "TEMPORARILY_UNAVAILABLE":
                return self._first_line(cause)
            cause = cause.__cause__ or cause.__context__
        return None

    def explain(self, error: BaseException) -> str:
        """Return the reason in one sentence why the store could not be used, without credentials."""
        return self.unavailable(error) or self._first_line(error)

    def _first_line(self, error: BaseException) -> str:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return redact_known(lines[0], self.uri)[:400]


def default_database(root: Path) -> Path:
    """Return the SQLite file that is the store of an output folder if no other is given."""
    return root / "mlflow.db"


def name_in_mlflow(root: Path) -> str:
    """Return the name of an output folder in MLflow, which is drawn once and saved in the folder.

    The name is random, moves with the folder, and distinguishes its runs from those of other folders on the same
    server.
    """
    folder = read_json_or_problem(root / NOTE)[0].get("folder")
    if not (isinstance(folder, str) and re.fullmatch("[0-9a-f]{12}", folder)):
        folder = uuid.uuid4().hex[:12]
        write_json(root / NOTE, {"schema": 1, "folder": folder})
    return folder


def resolve_store(root: Path, tracking_uri: str | None) -> Store:
    """Return the MLflow store of an output folder.

    It is the one at ``tracking_uri``, or else at MLFLOW_TRACKING_URI, or else a SQLite file in the folder. A relative
    SQLite path is made absolute here, so a later change of the working directory has no effect.

    Raises:
        TypeError: If the address is no text.
        ValueError: If the address is a folder, which MLflow no longer writes to, a database in memory, which ends with
            its process, or a SQLite file whose path contains %, ? or #.
    """
    if not isinstance(tracking_uri, str | None):
        raise TypeError(
            f"tracking_uri must be a text such as 'http://127.0.0.1:5000', or None, got {type(tracking_uri).__name__}"
        )
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    path = _sqlite_path(uri) if uri else default_database(root)
    if path is not None:
        # Versions of SQLAlchemy disagree on whether "%20" in an address is a blank, and MLflow reads it both ways.
        if forbidden := sorted(set(str(path)) & set("%?#")):
            raise ValueError(
                f"the path of MLflow's SQLite file must not contain {' or '.join(forbidden)}, got {path}: "
                "choose another output folder, or give the address of another store with --tracking-uri"
            )
        return Store(f"sqlite:///{path}", path, path.parent / "artifacts")
    scheme = urlsplit(uri).scheme
    if scheme.startswith("sqlite"):
        raise ValueError(
            f"the MLflow store must be a file, got the database in memory {uri}: give sqlite:///{default_database(root)}"
        )
    if scheme in ("", "file") and not uri.startswith("databricks"):
        instead = Path(uri.removeprefix("file:")) / "mlflow.db"
        raise ValueError(
            f"the address of the MLflow store must be a server or a database, got the folder {redact(uri)}. "
            f"MLflow no longer writes to folders: give sqlite:///{instead}"
        )
    manages_artifacts = scheme in ("", "http", "https", "databricks", "uc")
    return Store(uri, None, None if manages_artifacts else root / "artifacts")


def _sqlite_path(uri: str) -> Path | None:
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///(?!:memory:|file:)([^?]+)(\?.*)?", uri)
    return Path(match[1]).expanduser().resolve() if match else None
