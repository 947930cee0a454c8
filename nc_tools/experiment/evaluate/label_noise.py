"""What a run on noisy labels measures in addition: metrics under true labels, the noise estimated, suspect labels."""

from __future__ import annotations

from torch import Tensor

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.evaluate.holdout_record import TRANSITION, holdout_transitions, holdout_value
from nc_tools.experiment.evaluate.suspects_csv import write_suspects
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.experiment.weight_files import save_tensors
from nc_tools.metrics import (
    Suspects,
    anchor_transition,
    confident_transition,
    confusion_transition,
    counted_transition,
    precision_at,
    rank_suspects,
    transition_error,
)
from nc_tools.records import Collected
from nc_tools.run_records import RunRecord

HELD_OUT_ESTIMATES = {"confusion": confusion_transition, "confident": confident_transition}
"""Estimates of the transition matrix from held-out samples, by name."""
_LISTED_SUSPECTS = 2000


def evaluate_label_noise(
    job: Job, data: RunData, evaluator: Evaluator, train: EvaluationSet, test: EvaluationSet, record: RunRecord
) -> dict[str, float]:
    """Return metrics of the training set under noisy and true labels; write suspects.csv and transition matrices.

    Where no true labels are known, nothing is returned. Both files need no true labels: they are then written if the
    protocol asks for suspects, or leaves this open and ``data.labels`` gives the labels. The test set has true labels.
    Nothing that a run chooses depends on what is measured here.
    """
    clean = train.clean_labels
    rows = _rows_of_suspects(job, clean)
    if clean is None and not rows:
        return {}
    outputs = evaluator.outputs(train)
    suspects = rank_suspects(outputs.features, outputs.logits, outputs.labels)
    if rows:
        write_suspects(record.path / "suspects.csv", suspects, train, rows)
    matrices = _estimated_transitions(job, outputs)
    if clean is None:
        save_tensors(matrices, record.path / TRANSITION)
        return {}
    values = evaluator.accuracy(train) | evaluator.clean_label_metrics(train) | evaluator.label_noise(train)
    values |= evaluator.dilation(test, evaluator.outputs(test).labels)
    counted = counted_transition(clean, outputs.labels.cpu(), data.sources.num_classes)
    save_tensors({"counted": counted, **matrices}, record.path / TRANSITION)
    values |= _transition_errors(job, matrices["anchor"], counted)
    return values | suspect_precision(suspects, outputs.labels.cpu() != clean)


def _rows_of_suspects(job: Job, clean: Tensor | None) -> int:
    """Return how many suspects are listed: as many as the protocol says, else some where labels may be wrong."""
    if job.protocol.suspects is not None:
        return job.protocol.suspects
    return _LISTED_SUSPECTS if clean is not None or job.config.data.labels is not None else 0


def _estimated_transitions(job: Job, outputs: Collected) -> dict[str, Tensor]:
    """Return the estimates of the transition matrix: from this run's anchors, and from the hold-out run's counts."""
    matrices = {"anchor": anchor_transition(outputs.logits)}
    if job.holdout_run is not None:
        matrices |= holdout_transitions(job.holdout_run, tuple(HELD_OUT_ESTIMATES), outputs.logits.shape[1])
    return matrices


def _transition_errors(job: Job, anchor: Tensor, counted: Tensor) -> dict[str, float]:
    """Return how far the estimated transition matrices are from the counted one."""
    values = {"noise/transition_error_anchor": transition_error(anchor, counted)}
    if job.holdout_run is not None:
        values |= {key: holdout_value(job.holdout_run, key) for key in map(_error_key, HELD_OUT_ESTIMATES)}
    return values


def _error_key(name: str) -> str:
    return f"noise/transition_error_{name}"


def suspect_precision(suspects: Suspects, wrong: Tensor) -> dict[str, float]:
    """Return the share of wrong labels among the first suspects of each ranking, as many as labels are wrong."""
    rankings = {
        "precision": suspects.order,
        "precision_loss": suspects.loss_rank.argsort(),
        "precision_distance": suspects.distance_rank.argsort(),
    }
    shares = {name: precision_at(order, wrong) for name, order in rankings.items()}
    return {f"train/suspects/{name}": share for name, share in shares.items() if share is not None}


def save_held_out_estimates(job: Job, data: RunData, holdout: Collected, record: RunRecord) -> dict[str, float]:
    """Estimate the transition matrix from the hold-out, write the estimates, and return their errors.

    Without true labels there are no errors, and there are estimates only if a final run lists suspects.
    """
    given, true = data.sources.train.labels, data.sources.train.clean_labels
    if true is None and not _rows_of_suspects(job, true):
        return {}
    estimates = {name: estimate(holdout.logits, holdout.labels) for name, estimate in HELD_OUT_ESTIMATES.items()}
    save_tensors(estimates, record.path / TRANSITION)
    if true is None:
        return {}
    fit = data.subsets.fit
    counted = counted_transition(true[fit], given[fit], data.sources.num_classes)
    return {_error_key(name): transition_error(matrix, counted) for name, matrix in estimates.items()}
