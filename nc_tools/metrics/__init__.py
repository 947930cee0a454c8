"""Measures of collapse, recognition, calibration and transfer: pure functions of tensors, Python floats out.

Logits in, never probabilities and never guessed. A quantity that the input does not define has no key. What
each one means, and what it must not be used for, is in docs/measures.md.
"""

from nc_tools.metrics.accuracy import PerClass, classification, per_class
from nc_tools.metrics.collapse import collapse_from_moments, neural_collapse
from nc_tools.metrics.probe import linear_probe
from nc_tools.metrics.reliability import (
    ReliabilityBins,
    calibration,
    equal_mass_calibration_error,
    expected_calibration_error,
    reliability_bins,
)
from nc_tools.metrics.temperature import fit_temperature
from nc_tools.metrics.transfer import knn_accuracy, nearest_class_centre, transfer_report

__all__ = [
    "PerClass",
    "ReliabilityBins",
    "calibration",
    "classification",
    "collapse_from_moments",
    "equal_mass_calibration_error",
    "expected_calibration_error",
    "fit_temperature",
    "knn_accuracy",
    "linear_probe",
    "nearest_class_centre",
    "neural_collapse",
    "per_class",
    "reliability_bins",
    "transfer_report",
]
