"""Save a network as an MLflow model that can be served, in the format without pickles, and register it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.run_records import environment
from nc_tools.tracking.store import StoreError, resolve_store

_NOT_IN_NAMES = re.compile(r"[/:.%\"']")  # MLflow's rule for names of models
_BARS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


@dataclass(frozen=True, eq=False)
class ServedNetwork:
    """A network to be served, and what is stored with it.

    Attributes:
        network: Returns one tensor; in eval mode.
        example: Input for tracing and as example, at least two images: with one, the size of a batch would be fixed.
        files: Stored beside the model.
        metadata: Stored in the file MLmodel.
        card: The model card, in Markdown.
    """

    network: nn.Module
    example: Tensor
    files: tuple[Path, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""


def save_served_model(served: ServedNetwork, folder: Path) -> None:
    """Save a network as an MLflow model in a new folder, for ``mlflow models serve -m FOLDER --env-manager local``.

    The model is stored with ``torch.export``: no pickle is written, and no class of this package is needed to load it.
    """
    import mlflow

    with _quiet():
        mlflow.pytorch.save_model(served.network, str(folder), **_description(served))


def register_served_model(served: ServedNetwork, *, name: str, out: Path, tracking_uri: str | None) -> str:
    """Log a network as an MLflow model to a store, and register it under a name as a new version.

    Args:
        served: The network.
        name: Name of the registered model.
        out: Folder of the default store, if there is no address.
        tracking_uri: Address of the store; None for MLFLOW_TRACKING_URI, or else mlflow.db in ``out``.

    Returns:
        The address ``models:/NAME/VERSION``.

    Raises:
        ValueError: If the store cannot be used, or a run of MLflow is active here, which would get the model.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    from nc_tools.tracking.connection import connect

    if (active := mlflow.active_run()) is not None:
        raise ValueError(
            f"the model {name} cannot be registered in MLflow while the run {active.info.run_name!r} is active, "
            f"because it would be logged to that run: call mlflow.end_run() first"
        )
    store = resolve_store(out, tracking_uri)
    try:
        connect(store)
    except (StoreError, MlflowException, OSError) as error:
        raise ValueError(f"the model {name} cannot be registered in MLflow: {store.explain(error)}") from error
    try:
        with _quiet(), _tracked_at(mlflow, store.uri):
            experiment = _experiment(mlflow, "exported models", store.artifacts)
            with mlflow.start_run(experiment_id=experiment, run_name=name):
                logged = mlflow.pytorch.log_model(
                    served.network, name="model", registered_model_name=name, **_description(served)
                )
    except MlflowException as error:
        raise ValueError(f"the model {name} cannot be registered in MLflow: {store.explain(error)}") from error
    return f"models:/{name}/{logged.registered_model_version}"


def log_served_model(client: Any, run: Any, served: ServedNetwork) -> str:
    """Log a network to the store of ``client`` as the model of a run that has ended, without opening the run again.

    MLflow's own function would open the run again, and use the store that is set for the whole process.

    Args:
        client: MLflow's client.
        run: The run in MLflow.
        served: The network.

    Returns:
        The ID of the model. It has the run's name. Its page shows the model card, the run's parameters, and the values
        on the test set with the name of the data set.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    values, last = run.data.metrics, run.info.end_time
    inputs = run.inputs.dataset_inputs if run.inputs else []
    data = {"dataset_name": inputs[0].dataset.name, "dataset_digest": inputs[0].dataset.digest} if inputs else {}
    model = client.create_logged_model(
        run.info.experiment_id, name=_NOT_IN_NAMES.sub("-", run.info.run_name or "model"),
        source_run_id=run.info.run_id, params=run.data.params, tags={"mlflow.note.content": served.card},
    )  # fmt: skip
    try:
        with TemporaryDirectory() as folder, _quiet():
            about = Model(artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run.info.run_id)
            path = str(Path(folder) / "model")
            mlflow.pytorch.save_model(served.network, path, mlflow_model=about, **_description(served))
            client.log_model_artifacts(model.model_id, path)
        shown = [Metric(key, value, last, 0, model_id=model.model_id, run_id=run.info.run_id, **data)
                 for key, value in values.items() if key.startswith("test/")]  # fmt: skip
        client.log_batch(run.info.run_id, metrics=shown)
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    except BaseException:
        client.delete_logged_model(model.model_id)
        raise
    return str(model.model_id)


@contextmanager
def _tracked_at(mlflow: Any, uri: str) -> Iterator[None]:
    """Make MLflow use a store inside the ``with`` block.

    MLflow writes the address into MLFLOW_TRACKING_URI, for child processes. Where nobody had set it, it must not stay:
    everything that this process does later would go to that store, or to one in the current folder.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def _experiment(mlflow: Any, name: str, artifacts: Path | None) -> str:
    """Return the id of an experiment whose artifacts lie beside the store, not in the current folder."""
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None if artifacts is None else artifacts.resolve().as_uri()
    return str(mlflow.create_experiment(name, artifact_location=location))


def _description(served: ServedNetwork) -> dict[str, Any]:
    from mlflow.models import infer_signature

    example, installed = served.example.numpy(), environment.versions()
    with torch.no_grad():
        output = served.network(served.example).numpy()
    return {
        "serialization_format": "pt2",
        "input_example": example,
        "signature": infer_signature(example, output),
        "pip_requirements": [f"{name}=={installed[name].split('+')[0]}" for name in ("torch", "mlflow", "numpy")],
        "extra_files": [str(path) for path in served.files],
        "metadata": dict(served.metadata),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out a bar for each file that is copied, and warnings of MLflow's store and of types that JSON lacks."""
    before = os.environ.get(_BARS)
    os.environ[_BARS] = "false"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.pop(_BARS)
        if before is not None:
            os.environ[_BARS] = before
