"""What the runs with a hold-out give: a score for tuning; for final runs the temperature, best epoch and curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nc_tools.evaluation.evaluator import EvaluationSet
from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.evaluate.held_out_head import fit_held_out
from nc_tools.experiment.evaluate.holdout_record import holdout_value
from nc_tools.experiment.evaluate.label_noise import save_held_out_estimates
from nc_tools.experiment.evaluate.prediction_sets import CONFORMAL, fit_thresholds
from nc_tools.experiment.evaluate.scalings import SCALINGS, fit_scalings
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.experiment.weight_files import save_tensors
from nc_tools.metrics import fit_temperature
from nc_tools.models.classifier import Classifier
from nc_tools.run_records import RunRecord, read_run

HOLDOUT_SCORE = "holdout/gen/balanced_accuracy"
"""Key of the metric by which rates, tuned parameters and the best epoch are chosen."""

# What a final run's record shows of its hold-out run beside collapse and label noise.
_CURVES = ("holdout/gen/accuracy", HOLDOUT_SCORE, "holdout/cal/nll", "holdout/cal/ece")


def evaluate_holdout(
    job: Job, data: RunData, facts: DataFacts, model: Classifier, record: RunRecord
) -> dict[str, float]:
    """Return the final values of a tuning or hold-out run: its metrics on the hold-out, and what is chosen by them.

    A hold-out run also writes its scalings, conformal thresholds and estimates of the label noise into its folder.
    """
    evaluator = data.evaluator(model, facts)
    holdout = EvaluationSet("holdout", data.sources.train, data.subsets.holdout)
    values = fit_held_out(evaluator, holdout) | evaluator.accuracy(holdout)
    if job.kind == "holdout":
        outputs = evaluator.outputs(holdout)
        values["cal/temperature"] = fit_temperature(outputs.logits, outputs.labels)
        values["best/epoch"] = best_epoch(record)
        if scalings := fit_scalings(outputs):
            save_tensors(scalings, record.path / SCALINGS)
        save_tensors(fit_thresholds(outputs, evaluator.class_counts), record.path / CONFORMAL)
        values |= save_held_out_estimates(job, data, outputs, record)
    return values


def best_epoch(record: RunRecord) -> int:
    """Return the first epoch with the best balanced accuracy on the hold-out."""
    curve = record.read().curves()[HOLDOUT_SCORE]
    return max(curve, key=lambda point: (point[1], -point[0]))[0]


@dataclass(frozen=True)
class HoldoutResult:
    """What a final run takes from the hold-out run of its seed.

    Attributes:
        best_epoch: The epoch with the best balanced accuracy; None without a hold-out run.
        curves: The hold-out's metrics by epoch.
    """

    best_epoch: int | None = None
    curves: Mapping[int, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> HoldoutResult:
        """Read the result from a hold-out run's folder; an empty one if there is no such run."""
        if path is None:
            return cls()
        run = read_run(path)
        by_epoch: dict[int, dict[str, float]] = {}
        for key, points in run.curves().items():
            if key in _CURVES or key.startswith(("holdout/nc/", "holdout/noise/")):
                for epoch, value in points:
                    by_epoch.setdefault(epoch, {})[key] = value
        return cls(int(holdout_value(path, "best/epoch")), by_epoch)
