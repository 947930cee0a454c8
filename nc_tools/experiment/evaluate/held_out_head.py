"""What a head fits on samples that it was not trained on, such as the mix of a balanced-calibration head."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.heads.head import Head


def fit_held_out(evaluator: Evaluator, holdout: EvaluationSet) -> dict[str, float]:
    """Let the head of an evaluator's model fit on the hold-out, and return the scalars that it fitted, as ``head/``.

    Call it before the evaluator measures anything, since the logits change.
    """
    head = evaluator.model.head
    if not head.held_out:
        return {}
    outputs = evaluator.collect(holdout.images, holdout.indices)
    head.fit_held_out(outputs.features, outputs.labels)
    return fitted_scalars(head)


@torch.no_grad()
def take_held_out(head: Head, weights: Path) -> None:
    """Copy what the head of a hold-out run fitted, from the file of its weights, into the head of a final run."""
    if not head.held_out:
        return
    with safe_open(weights, framework="pt") as tensors:
        for name in head.held_out:
            head.get_buffer(name).copy_(tensors.get_tensor(f"head.{name}"))


def fitted_scalars(head: Head) -> dict[str, float]:
    """Return the scalars among what a head fitted, by key of a run's record."""
    buffers = {name: head.get_buffer(name) for name in head.held_out}
    return {f"head/{name}": float(value) for name, value in buffers.items() if value.ndim == 0}
