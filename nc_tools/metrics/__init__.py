"""Measures of collapse, recognition, calibration and transfer: pure functions of tensors, Python floats out.

Logits in, never probabilities and never guessed. A quantity that the input does not define has no key. What
each one means, and what it must not be used for, is in docs/measures.md.
"""

from nc_tools.metrics.accuracy import PerClass, classification, per_class
from nc_tools.metrics.collapse import collapse_from_moments, neural_collapse
from nc_tools.metrics.memorisation import memorisation
from nc_tools.metrics.probe import linear_probe
from nc_tools.metrics.reliability import (
    ReliabilityBins,
    calibration,
    equal_mass_calibration_error,
    expected_calibration_error,
    reliability_bins,
)
from nc_tools.metrics.suspects import Suspects, precision_at, rank_suspects
from nc_tools.metrics.temperature import fit_temperature
from nc_tools.metrics.transfer import knn_accuracy, nearest_class_centre, transfer_report
from nc_tools.metrics.transition import (
    anchor_transition,
    checked_transition,
    confusion_transition,
    counted_transition,
    transition_error,
)

__all__ = [
    "PerClass",
    "ReliabilityBins",
    "Suspects",
    "anchor_transition",
    "calibration",
    "checked_transition",
    "classification",
    "collapse_from_moments",
    "confusion_transition",
    "counted_transition",
    "equal_mass_calibration_error",
    "expected_calibration_error",
    "fit_temperature",
    "knn_accuracy",
    "linear_probe",
    "memorisation",
    "nearest_class_centre",
    "neural_collapse",
    "per_class",
    "precision_at",
    "rank_suspects",
    "reliability_bins",
    "transfer_report",
    "transition_error",
]
