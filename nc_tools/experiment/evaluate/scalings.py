"""Vector and Dirichlet scaling of a final run's logits, fitted by the hold-out run of its seed."""

from __future__ import annotations

from pathlib import Path

import torch

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.weight_files import load_tensors, save_tensors
from nc_tools.metrics import AffineScaling, calibration, classification, fit_dirichlet_scaling, fit_vector_scaling
from nc_tools.records import Collected

SCALINGS = "scalings.safetensors"
"""The fitted scalings, in the folder of a hold-out run."""

# The fit passes over all samples some hundred times, which must not take longer than training.
_MOST_SAMPLES = 5000
_MOST_CLASSES = 1000
# Dirichlet scaling has K^2 parameters, which need many times K samples.
_MOST_DIRICHLET_CLASSES = 100
_SAMPLES_PER_CLASS = 20


def save_scalings(outputs: Collected, folder: Path) -> None:
    """Fit both scalings on the outputs of a hold-out, as far as its size allows, and save them."""
    logits, labels = outputs.logits[:_MOST_SAMPLES], outputs.labels[:_MOST_SAMPLES]
    num_classes = logits.shape[1]
    fitted: dict[str, AffineScaling] = {}
    if num_classes <= _MOST_CLASSES:
        fitted["cal_vs"] = fit_vector_scaling(logits, labels)
    if num_classes <= _MOST_DIRICHLET_CLASSES and len(labels) >= _SAMPLES_PER_CLASS * num_classes:
        fitted["cal_ds"] = fit_dirichlet_scaling(logits, labels)
    tensors = {}
    for group, scaling in fitted.items():
        # The matrix of vector scaling is diagonal: K numbers are enough.
        tensors[f"{group}.weight"] = scaling.weight.diagonal().clone() if group == "cal_vs" else scaling.weight
        tensors[f"{group}.bias"] = scaling.bias
    if tensors:
        save_tensors(tensors, folder / SCALINGS)


def scaled_measures(evaluator: Evaluator, test: EvaluationSet, folder: Path) -> dict[str, float]:
    """Return calibration and accuracy after each scaling that a hold-out run fitted, as ``<test>/cal_vs/``, ...

    Empty for a hold-out run that saved none, as those of earlier versions.

    Args:
        evaluator: Of the final model.
        test: The test set.
        folder: Of the hold-out run.
    """
    if not (folder / SCALINGS).exists():
        return {}
    outputs, tensors = evaluator.outputs(test), load_tensors(folder / SCALINGS)
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
