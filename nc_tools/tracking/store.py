"""The MLflow store of an output folder: its address, what it shows, and why it cannot be used."""

import os
import re
import uuid
from collections.abc import Iterable, Iterator
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
        """Return the reason in one sentence if an error says that the store does not answer now; otherwise None."""
        from requests import exceptions

        for cause in _causes(error):
            if isinstance(cause, exceptions.RetryError):
                codes = re.search(r"too many \d+ error responses", str(cause))
                return f"the MLflow server {self.address} refuses requests now ({codes[0] if codes else cause})"
            if isinstance(cause, exceptions.ConnectionError | exceptions.Timeout):
                name = type(cause).__name__
                return f"the MLflow server {self.address} does not answer ({name}): start it, or check its address"
            if isinstance(cause, StoreError) or getattr(cause, "error_code", "") == "TEMPORARILY_UNAVAILABLE":
                return self.explain(cause)
        return None

    def explain(self, error: BaseException) -> str:
        """Return the first line of an error's message, without credentials."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return redact_known(lines[0], self.uri)[:400]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def default_database(root: Path) -> Path:
    """Return the SQLite file that is the store of an output folder if no other is given."""
    return root / "mlflow.db"


def name_in_mlflow(root: Path) -> str:
    """Return the name of an output folder in MLflow, which is made once and saved in the folder.

    It is random and moves with the folder. It tells its runs apart from those of another folder on the same server.
    """
    folder = read_json_or_problem(root / NOTE)[0].get("folder")
    if not (isinstance(folder, str) and re.fullmatch("[0-9a-f]{12}", folder)):
        folder = uuid.uuid4().hex[:12]
        write_json(root / NOTE, {"schema": 1, "folder": folder, "experiments": {}})
    return folder


def shown_experiments(root: Path, store: Store) -> list[str]:
    """Return the ids of the experiments of a store that show runs of an output folder."""
    stores = read_json_or_problem(root / NOTE)[0].get("experiments")
    numbers = stores.get(_key(root, store)) if isinstance(stores, dict) else None
    return [str(n) for n in numbers if str(n).isdecimal()] if isinstance(numbers, list) else []


def add_experiments(root: Path, store: Store, numbers: Iterable[str]) -> None:
    """Save the ids of experiments of a store that show runs of an output folder, beside those that are known."""
    before = shown_experiments(root, store)
    if new := [number for number in numbers if number not in before]:
        note = read_json_or_problem(root / NOTE)[0]
        write_json(root / NOTE, note | {"experiments": {_key(root, store): [*before, *new]}})


def _key(root: Path, store: Store) -> str:
    return "" if store.database == default_database(root) else store.address


def resolve_store(root: Path, tracking_uri: str | None) -> Store:
    """Return the MLflow store of an output folder.

    It is the one at ``tracking_uri``, or else at MLFLOW_TRACKING_URI, or else a SQLite file in the folder. A relative
    SQLite path is made absolute here, so a later change of the working directory has no effect.

    Raises:
        ValueError: If the address is a folder, which MLflow no longer writes to, a database in memory, which ends with
            its process, or a SQLite file whose path contains %, ? or #.
    """
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
