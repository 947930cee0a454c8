"""Log the model of each final run of an output folder in MLflow, with its run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nc_tools.deployment.export_run import served_network, write_descriptions
from nc_tools.deployment.model_card import CardTexts
from nc_tools.deployment.predictor import Predictor
from nc_tools.run_records.reader import StoredRun, read_runs
from nc_tools.tracking.models_of_runs import log_missing_models
from nc_tools.tracking.served_model import ServedNetwork


def log_models(root: Path, tracking_uri: str | None, say: Callable[[str], None]) -> int:
    """Log the models of the finished final runs that MLflow shows without a model.

    A model takes images and returns probabilities, without pickles and with signature, input example and model card, as
    ``nc-tools export --to mlflow`` makes it. A model that cannot be exported is reported by ``say``, and the others are
    logged.

    Args:
        root: The output folder.
        tracking_uri: MLflow store, as for ``MlflowSync``.
        say: Prints a line.

    Returns:
        How many models were logged.

    Raises:
        ValueError: If the store does not answer.
    """

    def network_of(run: StoredRun, folder: Path) -> ServedNetwork | None:
        try:
            predictor = Predictor.load(run.path)
            predictor.check_takes_images()
        except (ValueError, OSError) as error:
            say(f"{run.path.name} gets no model in MLflow: {' '.join(str(error).split())}")
            return None
        write_descriptions(predictor, run.path, folder, CardTexts())
        return served_network(predictor, folder)

    runs = [run for run in read_runs(root, ("final",)) if run.status == "FINISHED"]
    logged = log_missing_models(root, tracking_uri, runs, network_of)
    say(f"{logged} model{'s' * (logged != 1)} logged")
    return logged
