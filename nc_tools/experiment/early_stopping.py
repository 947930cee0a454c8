"""Early stopping of a run by its hold-out; a final run ends at the best epoch of its hold-out run."""

from __future__ import annotations

from collections.abc import Mapping

from nc_tools.experiment.evaluate.holdout_run import HOLDOUT_SCORE, HoldoutResult
from nc_tools.experiment.job import Job
from nc_tools.experiment.weight_files import load_weights, save_weights
from nc_tools.models.classifier import Classifier
from nc_tools.run_records import RunRecord

_STOPPED = "stopped.safetensors"


class EarlyStopping:
    """Decides after each epoch whether a run ends, and keeps the weights of its best epoch.

    Without ``training.patience`` in the arm's configuration it never ends a run and changes no model. A run that is
    resumed finds its earlier scores in its record.

    Args:
        job: The run.
        record: Its record.
        holdout: What a final run takes from its hold-out run.
    """

    def __init__(self, job: Job, record: RunRecord, holdout: HoldoutResult) -> None:
        self._patience = job.config.training.patience
        self._is_final = job.kind == "final"
        self._last_epoch = holdout.best_epoch
        self._path = record.path / _STOPPED
        self._best: tuple[float, int] | None = None
        for epoch, score in record.read().curves().get(HOLDOUT_SCORE, []) if self._scored else []:
            self._note(score, epoch)

    @property
    def _scored(self) -> bool:
        return self._patience is not None and not self._is_final

    def end(self, epoch: int, values: Mapping[str, float], model: Classifier) -> bool:
        """Return True if the training ends after this epoch, counted from 1."""
        if self._patience is None:
            return False
        if self._is_final:
            return epoch == self._last_epoch
        if self._note(values[HOLDOUT_SCORE], epoch):
            save_weights(model, self._path)
        assert self._best is not None  # noqa: S101 (set by the first epoch)
        return epoch - self._best[1] >= self._patience

    def restore_best(self, model: Classifier) -> None:
        """Load the weights of the best epoch into the trained model, if the run has kept them."""
        if self._scored and self._path.exists():
            load_weights(model, self._path)

    def clean_up(self) -> None:
        """Remove the weights that were kept."""
        self._path.unlink(missing_ok=True)

    def _note(self, score: float, epoch: int) -> bool:
        """Note the score of an epoch; return True if it is the best so far. Of equal scores the first is the best."""
        better = self._best is None or score > self._best[0]
        if better:
            self._best = (score, epoch)
        return better
