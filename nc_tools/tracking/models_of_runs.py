"""Log the models of runs that MLflow shows without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from nc_tools.run_records.reader import StoredRun
from nc_tools.tracking.served_model import ServedNetwork, log_served_model
from nc_tools.tracking.store import StoreError, name_in_mlflow, resolve_store


def log_missing_models(
    root: Path,
    tracking_uri: str | None,
    runs: Sequence[StoredRun],
    network_of: Callable[[StoredRun, Path], ServedNetwork | None],
) -> int:
    """Log the network of each run that MLflow shows without a model.

    Args:
        root: The output folder.
        tracking_uri: MLflow store, as for ``MlflowSync``.
        runs: The runs whose models are to be logged.
        network_of: Called as ``network_of(run, folder)``, with an empty folder for the files that are stored with the
            network; returns None for a run whose network cannot be served.

    Returns:
        How many models were logged.

    Raises:
        ValueError: If the store does not answer.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from nc_tools.tracking.connection import connect
    from nc_tools.tracking.runs_in_store import FolderRuns

    store, logged = resolve_store(root.resolve(), tracking_uri), 0
    try:
        client = connect(store)
        by_experiment: dict[str, FolderRuns] = {}
        for run in runs:
            name = run.identity.experiment
            if name not in by_experiment:
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    continue
                by_experiment[name] = FolderRuns(client, experiment.experiment_id, name_in_mlflow(root))
            shown = by_experiment[name].shown(run.path.name)
            if shown is None or (shown.outputs and shown.outputs.model_outputs):
                continue
            with TemporaryDirectory() as folder:
                network = network_of(run, Path(folder))
                if network is not None:
                    log_served_model(client, shown, network)
                    logged += 1
    except (StoreError, MlflowException, SQLAlchemyError, OSError) as error:
        raise ValueError(store.explain(error)) from error
    return logged
