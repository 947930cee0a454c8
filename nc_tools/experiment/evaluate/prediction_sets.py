"""Conformal sets of a final run, with the thresholds that the hold-out run of its seed fitted."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.weight_files import load_tensors, save_tensors
from nc_tools.metrics import CONFORMAL_METHODS, conformal_sets, fit_conformal, selective_accuracy, set_measures
from nc_tools.records import Collected

CONFORMAL = "conformal.safetensors"
"""The thresholds of each method (K,), in the folder of a hold-out run."""

_MOST_SAMPLES = 20_000
# Scores of float64 that are held at once, about 1 GB.
_MOST_SCORES = 1e8


def save_thresholds(outputs: Collected, class_counts: Tensor, folder: Path) -> None:
    """Fit the thresholds of every method on the outputs of a hold-out, and save them."""
    logits, labels = outputs.logits[:_MOST_SAMPLES], outputs.labels[:_MOST_SAMPLES]
    thresholds: dict[str, Tensor] = {
        method: fit_conformal(logits, labels, method, class_counts) for method in CONFORMAL_METHODS
    }
    save_tensors(thresholds, folder / CONFORMAL)


def set_coverage(evaluator: Evaluator, test: EvaluationSet, folder: Path) -> dict[str, float]:
    """Return coverage and size of each method's sets, as ``<test>/conformal/<method>/``.

    Empty for a hold-out run that saved no thresholds, as those of earlier versions. As with the temperature, they were
    fitted for the model of the hold-out run, which saw fewer images.

    Args:
        evaluator: Of the final model.
        test: The test set.
        folder: Of the hold-out run.
    """
    outputs = evaluator.outputs(test)
    if not (folder / CONFORMAL).exists() or outputs.logits.numel() > _MOST_SCORES:
        return {}
    tensors, counts = load_tensors(folder / CONFORMAL), evaluator.class_counts
    values: dict[str, float] = {}
    for method in CONFORMAL_METHODS:
        thresholds = tensors.get(method)
        if thresholds is None or thresholds.shape != outputs.logits.shape[1:]:
            continue
        sets = conformal_sets(outputs.logits, method, thresholds, counts)
        measures = set_measures(sets, outputs.labels, counts)
        values |= {f"{test.name}/conformal/{method}/{key}": value for key, value in measures.items()}
    return values


def surest_predictions(evaluator: Evaluator, test: EvaluationSet) -> dict[str, float]:
    """Return the accuracy of the surest 80 % of the predictions, by group of classes, as ``<test>/selective/``."""
    outputs = evaluator.outputs(test)
    measures = selective_accuracy(outputs.logits, outputs.labels, evaluator.class_counts)
    return {f"{test.name}/selective/{key}": value for key, value in measures.items()}
