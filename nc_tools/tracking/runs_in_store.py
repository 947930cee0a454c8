"""Find, create and replace the runs of an output folder in an experiment of MLflow."""

import json
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from nc_tools.run_records.json_files import read_json_or_problem
from nc_tools.tracking.pages import chart_view, pages
from nc_tools.tracking.run_items import COMPARISON, RunItem
from nc_tools.tracking.store import Store, StoreError, default_database

RECORD, ATTEMPT, SENT, REPLACED, PARENT = "nc.record", "nc.attempt", "nc.sent", "nc.replaced", "nc.comparison"
OURS = "nc.made_by"
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


class FolderRuns:
    """The runs of one output folder in an experiment.

    Args:
        client: MLflow's client.
        experiment: Id of the experiment.
        folder: The folder's name in MLflow.
    """

    def __init__(self, client: MlflowClient, experiment: str, folder: str) -> None:
        self.client = client
        self.experiment = experiment
        self.folder = folder
        self._runs: dict[str, list[Run]] = defaultdict(list)  # by the name of their item
        for pattern in (f"{folder}/%", "%@%"):  # earlier versions named a run RECORD@CREATION_TIME
            token: str | None = None
            while token != "":
                query = f"tags.`{RECORD}` LIKE '{pattern}'"
                page = client.search_runs([experiment], query, ViewType.ALL, page_token=token)
                for run in page:
                    self._runs[run.data.tags[RECORD].removeprefix(f"{folder}/")].append(run)
                token = page.token or ""

    def claim(self, item: RunItem) -> Run | None:
        """Return the one run that shows an item, created if there is none; None if a user has deleted it.

        Any other run of the item is deleted: one of an earlier attempt; one with steps that a resumed run makes again,
        as MLflow cannot remove values; one that MLflow has created although its answer was lost.
        """
        names = {RECORD: f"{self.folder}/{item.name}", ATTEMPT: item.attempt}
        for run in self._runs.pop(f"{item.name}@{item.attempt}", ()):  # named by an earlier version
            for key, value in names.items():
                self.client.set_tag(run.info.run_id, key, value)
            run.data.tags.update(names)
            self._runs[item.name].append(run)
        same = [run for run in self._runs[item.name] if _shows(run, item)]
        chosen = max(filter(_is_active, same), key=lambda run: sent_state(run).get("offset", -1), default=None)
        for run in self._runs[item.name]:
            if run is not chosen and _is_active(run):
                self.client.set_tag(run.info.run_id, REPLACED, "true")
                self.client.delete_run(run.info.run_id)
        if not same:
            chosen = self._create(item, names)
        self._runs[item.name] = [chosen] if chosen else []
        return chosen

    def shown(self, name: str) -> Run | None:
        """Return the run that shows the item of this name; None if there is none or a user has deleted it."""
        return next(filter(_is_active, self._runs.get(name, ())), None)

    def link_to_comparison(self) -> None:
        """Tag each run with the id of the comparison's run; MLflow's own tag would hide the runs from its charts."""
        comparison = self._comparison()
        others = [name for name in self._runs if comparison and name != COMPARISON and "@" not in name]
        for run in (run for name in others for run in filter(_is_active, self._runs[name])):
            if run.data.tags.get(PARENT) != comparison:
                self.client.set_tag(run.info.run_id, PARENT, comparison)

    def pages(self) -> list[tuple[str, str]]:
        """Return MLflow's pages of these runs, as the function ``pages`` does; none if there are no runs."""
        shown = any(_is_active(run) for runs in self._runs.values() for run in runs)
        return pages(self.experiment, self._comparison()) if shown else []

    def _comparison(self) -> str | None:
        return next((run.info.run_id for run in self._runs.get(COMPARISON, ()) if _is_active(run)), None)

    def _create(self, item: RunItem, names: dict[str, str]) -> Run:
        # MLflow would repeat a request whose answer is lost, and so create a second run.
        before = os.environ.get(RETRIES)
        os.environ[RETRIES] = "0"
        try:
            return self.client.create_run(self.experiment, start_time=item.started_ms, tags={**item.tags, **names})
        finally:
            os.environ.pop(RETRIES)
            os.environ.update({RETRIES: before} if before is not None else {})


def sent_state(run: Run) -> dict[str, Any]:
    """Return what a run in MLflow already has of its item, from a tag of the run; {} if nothing was sent."""
    try:
        state = json.loads(run.data.tags[SENT])
        return state if isinstance(state["offset"], int) and isinstance(state["resumes"], int) else {}
    except (KeyError, TypeError, ValueError):  # not sent yet, or the tag was edited
        return {}


def _is_active(run: Run) -> bool:
    return bool(run.info.lifecycle_stage == "active")


def _shows(run: Run, item: RunItem) -> bool:
    """Return True if a run is of the same attempt and holds no value that the record has taken back."""
    state = sent_state(run)
    repeated = any(size < state["offset"] for size in item.resumed[state["resumes"] :]) if state else False
    return run.data.tags.get(ATTEMPT) == item.attempt and REPLACED not in run.data.tags and not repeated


def experiment_id(client: MlflowClient, store: Store, root: Path, name: str) -> str:
    """Return the id of the MLflow experiment with this name; create it if it does not exist.

    Raises:
        StoreError: If the folder was moved and the experiment's artifacts are stored under its old path.
    """
    location = None
    if store.artifacts is not None:
        location = (store.artifacts / (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "experiment")).as_uri()
    if client.get_experiment_by_name(name) is None:
        client.create_experiment(name, artifact_location=location, tags={OURS: "nc_tools"})
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None  # noqa: S101
    tags = chart_view()
    if OURS in experiment.tags:
        if store.database == default_database(root) and experiment.artifact_location != location:
            raise StoreError(
                f"the folder {root} was moved, and MLflow's store in it still contains the old path: delete mlflow.db "
                "and artifacts/ in the folder; the next sync creates them again from the runs' files"
            )
        about, _ = read_json_or_problem(root / "experiment.json")
        if about.get("question") and about.get("name") in (None, name):
            tags["mlflow.note.content"] = str(about["question"])
    for key, value in tags.items():
        if experiment.tags.get(key) != value:
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return str(experiment.experiment_id)
