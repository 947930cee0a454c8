"""Measures of collapse, recognition, calibration and transfer: pure functions of tensors, Python floats out.

Logits in, never probabilities and never guessed. A quantity that the input does not define has no key. What
each one means, and what it must not be used for, is in docs/measures.md.
"""

from nc_tools.metrics.accuracy import PerClass, classification, per_class
from nc_tools.metrics.brier import brier_decomposition
from nc_tools.metrics.classwise import classwise_calibration_error, top_label_calibration_error
from nc_tools.metrics.collapse import collapse_from_moments, neural_collapse
from nc_tools.metrics.debiased import DebiasedError, debiased_calibration_error
from nc_tools.metrics.grouped import grouped_calibration
from nc_tools.metrics.kernel_calibration import kernel_calibration_error
from nc_tools.metrics.memorisation import memorisation
from nc_tools.metrics.probe import Probe, fit_probe, fit_ridge_probe, linear_probe, ridge_probe
from nc_tools.metrics.ranking import CollapseRanking, RankCorrelation, Ranked, rank_by_collapse, rank_correlation
from nc_tools.metrics.reliability import (
    ReliabilityBins,
    calibration,
    equal_mass_calibration_error,
    expected_calibration_error,
    reliability_bins,
)
from nc_tools.metrics.risk_coverage import RiskCoverage, risk_coverage
from nc_tools.metrics.scaling import AffineScaling, fit_dirichlet_scaling, fit_vector_scaling
from nc_tools.metrics.suspects import Suspects, precision_at, rank_suspects
from nc_tools.metrics.temperature import fit_temperature
from nc_tools.metrics.transfer import imprint_accuracy, knn_accuracy, nearest_class_centre, transfer_report
from nc_tools.metrics.transition import (
    anchor_transition,
    checked_transition,
    confusion_transition,
    counted_transition,
    transition_error,
)
from nc_tools.metrics.uniform_accuracy import uniform_accuracy

__all__ = [
    "AffineScaling",
    "CollapseRanking",
    "DebiasedError",
    "PerClass",
    "Probe",
    "RankCorrelation",
    "Ranked",
    "ReliabilityBins",
    "RiskCoverage",
    "Suspects",
    "anchor_transition",
    "brier_decomposition",
    "calibration",
    "checked_transition",
    "classification",
    "classwise_calibration_error",
    "collapse_from_moments",
    "confusion_transition",
    "counted_transition",
    "debiased_calibration_error",
    "equal_mass_calibration_error",
    "expected_calibration_error",
    "fit_dirichlet_scaling",
    "fit_probe",
    "fit_ridge_probe",
    "fit_temperature",
    "fit_vector_scaling",
    "grouped_calibration",
    "imprint_accuracy",
    "kernel_calibration_error",
    "knn_accuracy",
    "linear_probe",
    "memorisation",
    "nearest_class_centre",
    "neural_collapse",
    "per_class",
    "precision_at",
    "rank_by_collapse",
    "rank_correlation",
    "rank_suspects",
    "reliability_bins",
    "ridge_probe",
    "risk_coverage",
    "top_label_calibration_error",
    "transfer_report",
    "transition_error",
    "uniform_accuracy",
]
