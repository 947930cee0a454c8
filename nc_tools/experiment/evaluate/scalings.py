"""Vector and Dirichlet scaling of logits, fitted on held-out samples; for a final run by its hold-out run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.evaluate.drawn_outputs import draw_outputs
from nc_tools.metrics import AffineScaling, calibration, classification, fit_dirichlet_scaling, fit_vector_scaling
from nc_tools.records import Collected

SCALINGS = "scalings.safetensors"
"""The fitted scalings, in the folder of a hold-out run."""

# The fit passes over all samples some hundred times, which must not take longer than training.
_MOST_SAMPLES = 5000
_MOST_CLASSES = 1000
# Dirichlet scaling fits (K + 1) numbers for each class; with fewer samples than these it can fit every sample.
_SAMPLES_PER_CLASS = 20


def fit_scalings(outputs: Collected) -> dict[str, Tensor]:
    """Fit both scalings on the outputs of a hold-out, as far as its size allows; return their tensors by name."""
    logits, labels = draw_outputs(outputs, _MOST_SAMPLES)
    num_classes = logits.shape[1]
    fitted: dict[str, AffineScaling] = {}
    if num_classes <= _MOST_CLASSES:
        fitted["cal_vs"] = fit_vector_scaling(logits, labels)
    if len(labels) >= num_classes * max(_SAMPLES_PER_CLASS, num_classes + 1):
        fitted["cal_ds"] = fit_dirichlet_scaling(logits, labels)
    tensors = {}
    for group, scaling in fitted.items():
        # The matrix of vector scaling is diagonal: K numbers are enough.
        tensors[f"{group}.weight"] = scaling.weight.diagonal().clone() if group == "cal_vs" else scaling.weight
        tensors[f"{group}.bias"] = scaling.bias
    return tensors


def scaled_measures(evaluator: Evaluator, test: EvaluationSet, tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Return calibration after each scaling, as ``<test>/cal_vs/`` and ``<test>/cal_ds/``.

    For vector scaling, accuracy is returned too, as ``<test>/gen_vs/``.

    Args:
        evaluator: Evaluator of the model.
        test: The test set.
        tensors: The scalings, as :func:`fit_scalings` returns them; those that are missing are left out.
    """
    outputs = evaluator.outputs(test)
    values: dict[str, float] = {}
    for group in ("cal_vs", "cal_ds"):
        weight, bias = tensors.get(f"{group}.weight"), tensors.get(f"{group}.bias")
        if weight is None or bias is None or bias.shape != outputs.logits.shape[1:]:
            continue
        scaling = AffineScaling(torch.diag(weight) if weight.ndim == 1 else weight, bias)
        logits = scaling(outputs.logits)
        errors = calibration(logits, outputs.labels)
        values |= {f"{test.name}/{group}/{key}": value for key, value in errors.items()}
        if group == "cal_vs":
            shares = classification(logits, outputs.labels, evaluator.class_counts)
            values |= {f"{test.name}/gen_vs/{key}": value for key, value in shares.items()}
    return values
