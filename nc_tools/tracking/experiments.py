"""The experiments of an MLflow store, and the runs of this output folder that they already hold."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nc_tools.run_records.json_files import read_json
from nc_tools.tracking.store import DEFAULT_KEY, Store, StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

NOTE = "mlflow.note.content"
OURS = "nc.made_by"
PAGE = 1000


@dataclass
class Experiments:
    """Finds and creates the experiments of an MLflow store, and remembers which runs they already hold."""

    client: "MlflowClient"
    store: Store
    root: Path
    _ids: dict[str, str] = field(default_factory=dict)
    _stages: dict[str, str] = field(default_factory=dict)
    _by_record: dict[str, str] = field(default_factory=dict)

    def remember(self, names: Iterable[str]) -> None:
        """Read which runs the experiments with these names hold; skip experiments that do not exist."""
        for name in dict.fromkeys(names):
            if self.client.get_experiment_by_name(name) is not None:
                self._read_runs(self.id_of(name))

    def _read_runs(self, experiment_id: str) -> None:
        from mlflow.entities import ViewType

        token: str | None = None
        while True:
            page = self.client.search_runs(
                [experiment_id], "tags.`nc.record` != ''", ViewType.ALL, PAGE, page_token=token
            )
            for run in page:
                self._stages[run.info.run_id] = run.info.lifecycle_stage
                if run.info.lifecycle_stage == "active":
                    self._by_record[run.data.tags["nc.record"]] = run.info.run_id
            token = page.token
            if not token:
                return

    def stage(self, run_id: str) -> str | None:
        """Return whether an MLflow run is "active" or "deleted"; None if the store has no such run."""
        return self._stages.get(run_id)

    def find(self, record_key: str) -> str | None:
        """Return the id of the active MLflow run with this record key; None if there is none."""
        return self._by_record.get(record_key)

    def learn(self, run_id: str, record_key: str) -> str:
        """Remember an MLflow run that was just created; return its id."""
        self._stages[run_id] = "active"
        self._by_record[record_key] = run_id
        return run_id

    def forget(self, run_id: str, record_key: str) -> None:
        """Remember that an MLflow run was just deleted."""
        self._stages[run_id] = "deleted"
        self._by_record.pop(record_key, None)

    def id_of(self, name: str) -> str:
        """Return the id of the MLflow experiment with this name; create it if it does not exist.

        Raises:
            StoreError: If the experiment was deleted, or if its artifacts are stored under the folder's path before a
                move.
        """
        if name not in self._ids:
            experiment = self.client.get_experiment_by_name(name)
            self._ids[name] = self._create(name) if experiment is None else self._checked(experiment)
        return self._ids[name]

    def _create(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        location = self._location(name)
        tags = {OURS: "nc_tools"}
        if question := self._question(name):
            tags[NOTE] = question
        try:
            return str(self.client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException:
            experiment = self.client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
            return self._checked(experiment)

    def _location(self, name: str) -> str | None:
        if self.store.artifacts is None:
            return None
        return (self.store.artifacts / (re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "experiment")).as_uri()

    def _checked(self, experiment: "Experiment") -> str:
        name = experiment.name
        if experiment.lifecycle_stage != "active":
            raise StoreError(
                f"the experiment {name!r} was deleted in {self.store.label}: restore it "
                f"with mlflow experiments restore -x {experiment.experiment_id}, or give the comparison another name"
            )
        ours = OURS in experiment.tags
        if ours and self.store.key == DEFAULT_KEY and experiment.artifact_location != self._location(name):
            raise StoreError(
                f"the folder {self.root} was moved, and MLflow's store in it still contains the old path: delete "
                "mlflow.db and artifacts/ in the folder; the next sync creates them again from the runs' files"
            )
        question = self._question(name)
        if ours and question and experiment.tags.get(NOTE) != question:
            self.client.set_experiment_tag(experiment.experiment_id, NOTE, question)
        return str(experiment.experiment_id)

    def _question(self, name: str) -> str | None:
        """Return the question in experiment.json if that file is about the experiment with this name."""
        try:
            about = read_json(self.root / "experiment.json")
        except (OSError, ValueError):
            return None
        question = about.get("question")
        if not question or about.get("name") not in (None, name):
            return None
        return question if isinstance(question, str) else json.dumps(question)
