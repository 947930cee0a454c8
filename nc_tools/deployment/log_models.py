"""Log the model of each final run of an output folder in MLflow, with its run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from nc_tools.deployment.export_run import served_network, write_descriptions
from nc_tools.deployment.model_card import CardTexts
from nc_tools.deployment.predictor import Predictor
from nc_tools.run_records.reader import StoredRun, read_runs
from nc_tools.tracking.store import StoreError, name_in_mlflow, resolve_store


def log_models(root: Path, tracking_uri: str | None, say: Callable[[str], None]) -> int:
    """Log the models of the finished final runs that are in MLflow and have none there yet.

    A model takes images and returns probabilities, without pickles and with signature, input example and model card, as
    ``nc-tools export --to mlflow`` makes it. One that cannot be exported is named, and the others are logged.

    Args:
        root: The output folder.
        tracking_uri: MLflow store, as for ``MlflowSync``.
        say: Prints a line.

    Returns:
        How many models were logged.

    Raises:
        ValueError: If the store does not answer.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from nc_tools.tracking.connection import connect
    from nc_tools.tracking.runs_in_store import FolderRuns
    from nc_tools.tracking.served_model import log_served_model

    store, logged, left_out = resolve_store(root.resolve(), tracking_uri), 0, 0
    runs = [run for run in read_runs(root, ("final",)) if run.status == "FINISHED"]
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
            problem = _log(run, lambda network, shown=shown: log_served_model(client, shown, network))
            logged, left_out = logged + (problem is None), left_out + (problem is not None)
            if problem is not None:
                say(f"{run.path.name} has no model in MLflow: {problem}")
    except (StoreError, MlflowException, SQLAlchemyError, OSError) as error:
        raise ValueError(store.explain(error)) from error
    say(f"{logged} models logged" + (f", {left_out} left out" if left_out else ""))
    return logged


def _log(run: StoredRun, log: Callable[..., str]) -> str | None:
    """Log the model of a run; return why it cannot be exported, or None."""
    try:
        predictor = Predictor.load(run.path)
        predictor.check_takes_images()
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    with TemporaryDirectory() as folder:
        write_descriptions(predictor, run.path, Path(folder), CardTexts())
        log(served_network(predictor, Path(folder)))
    return None
