"""Conformal prediction sets with thresholds fitted on held-out samples; for a final run by its hold-out run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.evaluate.drawn_outputs import draw_outputs
from nc_tools.metrics import (
    CONFORMAL_METHODS,
    class_coverage,
    conformal_sets,
    fit_conformal,
    selective_accuracy,
    set_measures,
)
from nc_tools.records import Collected

CONFORMAL = "conformal.safetensors"
"""The thresholds of each method (K,), in the folder of a hold-out run."""

_MOST_SAMPLES = 20_000
# Largest number of scores that are held at once, about 1 GB in float64.
_MOST_SCORES = 1e8


def fit_thresholds(outputs: Collected, class_counts: Tensor) -> dict[str, Tensor]:
    """Fit the thresholds of every method (K,) on the outputs of a hold-out; return them by the method's name."""
    logits, labels = draw_outputs(outputs, _MOST_SAMPLES)
    return {method: fit_conformal(logits, labels, method, class_counts) for method in CONFORMAL_METHODS}


@dataclass(frozen=True)
class SetCoverage:
    """How large the prediction sets of a run are, and how often they contain the label.

    Attributes:
        values: Coverage and size of each method's sets, as ``<test>/conformal/<method>/``.
        by_class: The coverage of each class (K,), by method; nan for a class without test samples.
    """

    values: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, list[float]] = field(default_factory=dict)


def set_coverage(evaluator: Evaluator, test: EvaluationSet, tensors: Mapping[str, Tensor]) -> SetCoverage:
    """Return coverage and size of each method's sets; empty if the test set has more than 10^8 scores.

    As with the temperature, the thresholds of a final run were fitted for the model of its hold-out run, which saw
    fewer images.

    Args:
        evaluator: Evaluator of the model.
        test: The test set.
        tensors: The thresholds, as :func:`fit_thresholds` returns them; methods without any are left out.
    """
    outputs, counts = evaluator.outputs(test), evaluator.class_counts
    if outputs.logits.numel() > _MOST_SCORES:
        return SetCoverage()
    result = SetCoverage()
    for method in CONFORMAL_METHODS:
        thresholds = tensors.get(method)
        if thresholds is None or thresholds.shape != outputs.logits.shape[1:]:
            continue
        sets = conformal_sets(outputs.logits, method, thresholds, counts)
        measures = set_measures(sets, outputs.labels, counts)
        result.values.update({f"{test.name}/conformal/{method}/{key}": value for key, value in measures.items()})
        result.by_class[method] = class_coverage(sets, outputs.labels).tolist()
    return result


def surest_predictions(evaluator: Evaluator, test: EvaluationSet) -> dict[str, float]:
    """Return the accuracy of the surest 80 % of the predictions, by group of classes, as ``<test>/selective/``."""
    outputs = evaluator.outputs(test)
    measures = selective_accuracy(outputs.logits, outputs.labels, evaluator.class_counts)
    return {f"{test.name}/selective/{key}": value for key, value in measures.items()}
