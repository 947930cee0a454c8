"""Find, create and replace the runs of an output folder in MLflow."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from nc_tools.run_records.json_files import read_json_or_problem
from nc_tools.tracking.run_items import COMPARISON, RunItem
from nc_tools.tracking.store import Store, StoreError, default_database

RECORD, ATTEMPT, SENT, REPLACED, PARENT = "nc.record", "nc.attempt", "nc.sent", "nc.replaced", "nc.comparison"
OURS = "nc.made_by"
QUESTION = "mlflow.note.content"
PAGE = 1000

Runs = dict[str, list[Run]]


def experiment_id(client: MlflowClient, store: Store, root: Path, name: str) -> str:
    """Return the id of the MLflow experiment with this name; create it if it does not exist.

    Raises:
        StoreError: If its artifacts are stored under the folder's path before a move.
    """
    location = None
    if store.artifacts is not None:
        location = (store.artifacts / (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "experiment")).as_uri()
    if client.get_experiment_by_name(name) is None:
        client.create_experiment(name, artifact_location=location, tags={OURS: "nc_tools"})
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None  # noqa: S101
    if OURS in experiment.tags:
        if store.database == default_database(root) and experiment.artifact_location != location:
            raise StoreError(
                f"the folder {root} was moved, and MLflow's store in it still contains the old path: delete mlflow.db "
                "and artifacts/ in the folder; the next sync creates them again from the runs' files"
            )
        about, _ = read_json_or_problem(root / "experiment.json")
        question = str(about.get("question") or "")
        if question and about.get("name") in (None, name) and experiment.tags.get(QUESTION) != question:
            client.set_experiment_tag(experiment.experiment_id, QUESTION, question)
    return str(experiment.experiment_id)


def runs_of_folder(client: MlflowClient, folder: str, experiment: str) -> Runs:
    """Return the runs of an output folder that an experiment holds, by the name of their item.

    Args:
        client: MLflow's client.
        folder: The folder's name in MLflow.
        experiment: Id of the experiment.
    """
    runs: Runs = defaultdict(list)
    # Earlier versions named a run by its record and the creation time of that.
    for pattern in (f"{folder}/%", "%@%"):
        token: str | None = None
        while token != "":
            query = f"tags.`{RECORD}` LIKE '{pattern}'"
            page = client.search_runs([experiment], query, ViewType.ALL, PAGE, page_token=token)
            for run in page:
                runs[run.data.tags[RECORD].removeprefix(f"{folder}/")].append(run)
            token = page.token or ""
    return runs


def sent_state(run: Run) -> dict[str, Any]:
    """Return what a run in MLflow already has of its item, which is noted in a tag of the run; {} for nothing."""
    try:
        state = json.loads(run.data.tags[SENT])
        return state if isinstance(state["offset"], int) and isinstance(state["resumes"], int) else {}
    except (KeyError, TypeError, ValueError):  # not sent yet, or the tag was edited
        return {}


def claim(client: MlflowClient, item: RunItem, experiment: str, folder: str, runs: Runs) -> Run | None:
    """Return the one run in MLflow that shows an item, created if there is none; None if a user has deleted it.

    Any other run of the item is deleted: one of an earlier attempt; one with steps that a resumed run makes again, as
    MLflow cannot remove values; one that MLflow has created although its answer was lost.
    """
    candidates = runs[item.name] + runs.pop(f"{item.name}@{item.attempt}", [])
    same = [run for run in candidates if _shows(run, item)]
    usable = [run for run in same if run.info.lifecycle_stage == "active"]
    chosen = max(usable, key=lambda run: sent_state(run).get("offset", -1), default=None)
    for run in candidates:
        if run is not chosen and run.info.lifecycle_stage == "active":
            client.set_tag(run.info.run_id, REPLACED, "true")
            client.delete_run(run.info.run_id)
    if chosen is None and not same:
        tags = {**item.tags, RECORD: f"{folder}/{item.name}", ATTEMPT: item.attempt}
        with _one_attempt():
            chosen = client.create_run(experiment, start_time=item.started_ms, tags=tags)
    runs[item.name] = [chosen] if chosen else []
    return chosen


def link_to_comparison(client: MlflowClient, runs: Runs) -> None:
    """Tag each run with the id of the run of their comparison; MLflow's own tag would hide the runs from its charts."""
    active = {
        name: run for name, candidates in runs.items() for run in candidates if run.info.lifecycle_stage == "active"
    }
    comparison = active.pop(COMPARISON, None)
    for name, run in active.items():
        if comparison and "@" not in name and run.data.tags.get(PARENT) != comparison.info.run_id:
            client.set_tag(run.info.run_id, PARENT, comparison.info.run_id)


def _shows(run: Run, item: RunItem) -> bool:
    """Return True if a run is of the same attempt and holds no value that the record has taken back."""
    tags, state = run.data.tags, sent_state(run)
    attempt = tags.get(ATTEMPT, tags[RECORD].partition("@")[2])
    repeated = any(size < state["offset"] for size in item.resumed[state["resumes"] :]) if state else False
    return attempt == item.attempt and REPLACED not in tags and not repeated


@contextmanager
def _one_attempt() -> Iterator[None]:
    """Let MLflow send a request once. It would repeat one whose answer is lost, and so create a second run."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name)
        os.environ.update({name: before} if before is not None else {})
