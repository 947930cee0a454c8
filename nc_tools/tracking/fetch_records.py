"""Find the records of runs that MLflow shows: on this machine, or else downloaded as folders."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nc_tools._support.suggestions import did_you_mean
from nc_tools.run_records.json_files import read_json_or_problem, write_json
from nc_tools.tracking.mlflow_sync import SETTINGS
from nc_tools.tracking.no_mlflow import NO_MLFLOW
from nc_tools.tracking.store import Store, StoreError, resolve_store

_RUN_NUMBER = re.compile("[0-9a-f]{32}")
_FOLDER = re.compile("[0-9a-f]{12}")
_RECORD = re.compile(r"\w[\w.+-]{0,199}", re.ASCII)  # not "..": a folder of this name is made
_PLAN = ("experiment.json", "tuning.json")
_FILES = ("run.json", "status.json", "final.json", "per_class.json", "metrics.jsonl", "predictions.safetensors")
_PAGE = 1000


@dataclass(frozen=True)
class FoundRecords:
    """Records of runs in one output folder.

    Attributes:
        root: The output folder, or the folder that holds the downloaded ones.
        names: Names of the runs' folders in ``root/runs``.
        whole: Whether these are all the runs that MLflow has of the folder.
        name: Name of the experiment in MLflow.
    """

    root: Path
    names: frozenset[str]
    whole: bool
    name: str


def fetch_records(
    sources: Sequence[str], into: Path, tracking_uri: str | None = None, filter_string: str | None = None
) -> list[FoundRecords]:
    """Return the records of runs that MLflow shows, by output folder.

    A record that lies on this machine is used where it is. For the others, the files that a comparison reads are
    downloaded; a run that has not ended has no result.

    Args:
        sources: Each is the ID of a run (32 hexadecimal digits) or the name of an experiment.
        into: Folder for the downloads. A record that an earlier call has downloaded there is not downloaded again.
        tracking_uri: Address of the MLflow store; None for MLFLOW_TRACKING_URI.
        filter_string: Which runs of the experiments are read, in MLflow's search syntax; None for all.

    Raises:
        ValueError: If there is no address, the store does not answer, a run or an experiment does not exist or holds no
            record, or MLflow does not understand the filter.
    """
    address = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not address or address == NO_MLFLOW:
        raise ValueError(
            f"mlflow:{sources[0]} needs the address of MLflow: give --tracking-uri ADDRESS, or set MLFLOW_TRACKING_URI"
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from nc_tools.tracking.connection import connect

    store = resolve_store(into, address)
    if store.database is not None and not store.database.exists():
        raise ValueError(f"there is no MLflow store {store.database}: give the address of the one that has the runs")
    try:
        client = connect(store)
        folders: list[FoundRecords] = []
        for source in sources:
            folders += _of_source(client, store, source, into, filter_string)
    except (StoreError, MlflowException, SQLAlchemyError, OSError) as error:
        raise ValueError(store.explain(error)) from error
    return folders


def _of_source(client: Any, store: Store, source: str, into: Path, filter_string: str | None) -> list[FoundRecords]:
    if _RUN_NUMBER.fullmatch(source):
        runs = [_run_of(client, store, source)]
        where, whole = f"the run {source}", False
    else:
        runs = list(_runs_of(client, store, source, filter_string))
        where, whole = f"the experiment {source!r}", not filter_string
        if not runs:
            matching = f" that fits the filter {filter_string!r}" if filter_string else ""
            raise ValueError(f"the experiment {source!r} of {store.address} has no run{matching}: give another one")
    by_folder: dict[str, list[Any]] = {}
    for run in runs:
        folder, _, name = run.data.tags.get("nc.record", "").partition("/")
        if _FOLDER.fullmatch(folder) and _RECORD.fullmatch(name):
            by_folder.setdefault(folder, []).append(run)
    folders = [
        records
        for folder, members in by_folder.items()
        for records in _of_folder(client, members, into / folder, whole=whole)
    ]
    if not folders:
        raise ValueError(
            f"{where} of {store.address} holds no record of a training run: give runs that a recipe, nc-tools choose "
            "or nc_tools.track has made"
        )
    return folders


def _run_of(client: Any, store: Store, number: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ValueError(f"{store.address} has no run {number}: give the ID that MLflow shows with the run") from error


def _runs_of(client: Any, store: Store, name: str, filter_string: str | None) -> Iterator[Any]:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        names = [other.name for other in client.search_experiments()]
        raise ValueError(f"{store.address} has no experiment {name!r}: {did_you_mean(name, names)}")
    from mlflow.exceptions import MlflowException

    token: str | None = None
    while token != "":
        try:
            page = client.search_runs(
                [experiment.experiment_id], filter_string or "", max_results=_PAGE, page_token=token
            )
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise ValueError(
                f"MLflow does not understand the filter {filter_string!r} ({store.explain(error)}): write it as in "
                "MLflow's search field, such as \"tags.`nc.arm` = 'etf'\""
            ) from error
        yield from page
        token = page.token or ""


def _of_folder(client: Any, runs: list[Any], target: Path, *, whole: bool) -> list[FoundRecords]:
    """Return the records of one output folder, in two parts if only some of them are on this machine."""
    names: dict[Path, set[str]] = {}
    experiment = client.get_experiment(runs[0].info.experiment_id).name
    for run in runs:
        name = run.data.tags["nc.record"].partition("/")[2]
        if run.data.tags.get("nc.kind") == "comparison" or name == "comparison":
            _download(client, run, target, _PLAN)
            continue
        root = _root_here(run, name)
        if root is None:
            root = target
            _make_record(client, run, target / "runs" / name)
        names.setdefault(root, set()).add(name)
    return [FoundRecords(root, frozenset(of_root), whole, experiment) for root, of_root in names.items()]


def _root_here(run: Any, name: str) -> Path | None:
    """Return the output folder of a run's record on this machine; None if it is not here, or is another attempt."""
    path = Path(run.data.tags.get("nc.path") or "")
    made = read_json_or_problem(path / "run.json")[0].get("created_ms") if path.name == name else None
    return path.parent.parent if made is not None and str(made) == run.data.tags.get("nc.attempt") else None


def _make_record(client: Any, run: Any, folder: Path) -> None:
    """Write the record of a run as a folder; one that has ended is downloaded once."""
    attempt = run.data.tags.get("nc.attempt", "")
    mark = {"attempt": attempt, "run": run.info.run_id, "ended": run.info.end_time, "status": run.info.status}
    if read_json_or_problem(folder / "mlflow.json")[0] == mark:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _download(client, run, folder, _FILES)
    if not (folder / "run.json").exists():  # it has not ended, and MLflow has its tags only
        tags = run.data.tags
        texts = {key: tags.get(f"nc.{key}", "") for key in ("seed", "draw")}
        numbers = {key: int(text) if text.isascii() and text.isdecimal() else 0 for key, text in texts.items()}
        made = int(attempt) if attempt.isdecimal() else run.info.start_time
        about = {"arm": tags.get("nc.arm", folder.name), "kind": tags.get("nc.kind", "final"), "created_ms": made}
        write_json(folder / "run.json", {**about, **numbers})
    if not (folder / "status.json").exists():  # sent by an earlier version
        write_json(folder / "status.json", {"status": run.info.status, "error": None})
    write_json(folder / "mlflow.json", mark)


def _download(client: Any, run: Any, folder: Path, names: Sequence[str]) -> None:
    if run.info.status == "RUNNING":
        return
    folder.mkdir(parents=True, exist_ok=True)
    there = {file.path for file in client.list_artifacts(run.info.run_id) if not file.is_dir}
    for name in names:
        if name in there:
            client.download_artifacts(run.info.run_id, name, str(folder))
