"""What a head fits on samples that it was not trained on, such as the mix of a balanced-calibration head."""

from __future__ import annotations

from pathlib import Path

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.evaluate.holdout_record import copy_holdout_buffers
from nc_tools.heads.head import Head


def fit_held_out(evaluator: Evaluator, holdout: EvaluationSet) -> dict[str, float]:
    """Fit the head of an evaluator's model on the hold-out, and return the scalars that it fitted, as ``head/``.

    Call it before the evaluator measures anything, since the logits change.
    """
    head = evaluator.model.head
    if not head.held_out:
        return {}
    outputs = evaluator.collect(holdout.images, holdout.indices)
    head.fit_held_out(outputs.features, outputs.labels)
    return fitted_scalars(head)


def take_held_out(head: Head, holdout_run: Path) -> None:
    """Copy what the head of a hold-out run fitted into the head of a final run."""
    copy_holdout_buffers(holdout_run, head, "head", head.held_out)


def fitted_scalars(head: Head) -> dict[str, float]:
    """Return the scalars among what a head fitted, by key of a run's record."""
    buffers = {name: head.get_buffer(name) for name in head.held_out}
    return {f"head/{name}": float(value) for name, value in buffers.items() if value.numel() == 1}
