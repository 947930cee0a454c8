"""What a run on noisy labels measures in addition: metrics under true labels, the noise estimated, suspect labels."""

from __future__ import annotations

from torch import Tensor

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.evaluate.holdout_record import TRANSITION, holdout_confusion, holdout_value
from nc_tools.experiment.evaluate.suspects_csv import write_suspects
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.experiment.weight_files import save_tensors
from nc_tools.metrics import (
    Suspects,
    anchor_transition,
    confusion_transition,
    counted_transition,
    precision_at,
    rank_suspects,
    transition_error,
)
from nc_tools.records import Collected
from nc_tools.run_records import RunRecord

_LISTED_SUSPECTS = 2000


def evaluate_label_noise(
    job: Job, data: RunData, evaluator: Evaluator, train: EvaluationSet, test: EvaluationSet, record: RunRecord
) -> dict[str, float]:
    """Return metrics of the training set under noisy and true labels, and write suspects.csv.

    Empty where no true labels are known; suspects.csv is then written if the protocol asks for it. The test set has
    true labels. Nothing that a run chooses depends on what is measured here.
    """
    clean = train.clean_labels
    rows = job.protocol.suspects
    if rows is None:
        noisy = clean is not None or job.config.data.labels is not None
        rows = _LISTED_SUSPECTS if noisy else 0
    if clean is None and not rows:
        return {}
    outputs = evaluator.outputs(train)
    suspects = rank_suspects(outputs.features, outputs.logits, outputs.labels)
    if rows:
        write_suspects(record.path / "suspects.csv", suspects, train, rows)
    if clean is None:
        return {}
    values = evaluator.accuracy(train) | evaluator.clean_label_metrics(train) | evaluator.label_noise(train)
    values |= evaluator.dilation(test, evaluator.outputs(test).labels)
    values |= _transition_errors(job, data, outputs, clean, record)
    return values | _suspect_precision(suspects, outputs.labels.cpu() != clean)


def _transition_errors(
    job: Job, data: RunData, outputs: Collected, clean: Tensor, record: RunRecord
) -> dict[str, float]:
    """Return how far the estimated transition matrices are from the counted one, and write them all."""
    counted = counted_transition(clean, outputs.labels.cpu(), data.sources.num_classes)
    anchor = anchor_transition(outputs.logits)
    tensors = {"counted": counted, "anchor": anchor}
    values = {"noise/transition_error_anchor": transition_error(anchor, counted)}
    if job.holdout_run is not None:
        tensors["confusion"] = holdout_confusion(job.holdout_run, data.sources.num_classes)
        key = "noise/transition_error_confusion"
        values[key] = holdout_value(job.holdout_run, key)
    save_tensors(tensors, record.path / TRANSITION)
    return values


def _suspect_precision(suspects: Suspects, wrong: Tensor) -> dict[str, float]:
    """Return the share of wrong labels among the first suspects of each ranking, as many as labels are wrong."""
    rankings = {
        "precision": suspects.order,
        "precision_loss": suspects.loss_rank.argsort(),
        "precision_distance": suspects.distance_rank.argsort(),
    }
    shares = {name: precision_at(order, wrong) for name, order in rankings.items()}
    return {f"train/suspects/{name}": share for name, share in shares.items() if share is not None}


def save_confusion_estimate(data: RunData, holdout: Collected, record: RunRecord) -> dict[str, float]:
    """Estimate the transition matrix from the confusions on the hold-out, write it, and return its error.

    Empty where no true labels are known.
    """
    given, true = data.sources.train.labels, data.sources.train.clean_labels
    if true is None:
        return {}
    estimate = confusion_transition(holdout.logits, holdout.labels)
    save_tensors({"confusion": estimate}, record.path / TRANSITION)
    fit = data.subsets.fit
    counted = counted_transition(true[fit], given[fit], data.sources.num_classes)
    return {"noise/transition_error_confusion": transition_error(estimate, counted)}
