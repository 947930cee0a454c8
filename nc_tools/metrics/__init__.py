"""Metrics of neural collapse, accuracy, calibration, transfer and label noise: pure functions of tensors.

Functions that read predictions take logits, never probabilities. Single numbers are returned as Python floats. A
quantity that is not defined for the input has no key in the result. docs/measures.md says what each measure means and
when not to use it.
"""

from nc_tools.metrics.accuracy import PerClass, classification, per_class
from nc_tools.metrics.calibration.affine_scaling import AffineScaling, fit_dirichlet_scaling, fit_vector_scaling
from nc_tools.metrics.calibration.brier import brier_decomposition
from nc_tools.metrics.calibration.classwise import classwise_calibration_error, top_label_calibration_error
from nc_tools.metrics.calibration.conformal import (
    CONFORMAL_METHODS,
    ConformalMethod,
    conformal_scores,
    conformal_sets,
    fit_conformal,
)
from nc_tools.metrics.calibration.coverage import class_coverage, selective_accuracy, set_measures
from nc_tools.metrics.calibration.debiased import DebiasedError, debiased_calibration_error
from nc_tools.metrics.calibration.grouped import grouped_calibration
from nc_tools.metrics.calibration.kernel import kernel_calibration_error
from nc_tools.metrics.calibration.reliability import (
    ReliabilityBins,
    calibration,
    equal_mass_calibration_error,
    expected_calibration_error,
    reliability_bins,
)
from nc_tools.metrics.calibration.risk_coverage import RiskCoverage, risk_coverage
from nc_tools.metrics.calibration.temperature import fit_temperature
from nc_tools.metrics.collapse.cosine_collapse import cosine_collapse
from nc_tools.metrics.collapse.geometric_complexity import GeometricComplexity, geometric_complexity
from nc_tools.metrics.collapse.hyperspherical_uniformity import hyperspherical_uniformity
from nc_tools.metrics.collapse.minority_collapse import minority_collapse
from nc_tools.metrics.collapse.moment_alignment import layer_alignment, moment_alignment
from nc_tools.metrics.collapse.neural_collapse import collapse_from_moments, neural_collapse
from nc_tools.metrics.collapse.outlier_orthogonality import outlier_orthogonality
from nc_tools.metrics.collapse.regression_collapse import regression_collapse
from nc_tools.metrics.collapse.seli import SELIGeometry, seli_distance, seli_geometry
from nc_tools.metrics.collapse.stable_rank import stable_rank, stable_ranks
from nc_tools.metrics.collapse.subgroup_collapse import subgroup_collapse
from nc_tools.metrics.collapse.tagwise_average import tagwise_average
from nc_tools.metrics.collapse.uniform_duality import uniform_duality
from nc_tools.metrics.collapse.variability_index import variability_collapse_index
from nc_tools.metrics.label_noise.dilation import dilation
from nc_tools.metrics.label_noise.memorization import memorization
from nc_tools.metrics.label_noise.suspects import Suspects, precision_at, rank_suspects
from nc_tools.metrics.label_noise.transition import checked_transition, counted_transition, transition_error
from nc_tools.metrics.label_noise.transition_estimates import (
    anchor_transition,
    confident_classes,
    confident_joint,
    confident_transition,
    confusion_transition,
    transition_problem,
)
from nc_tools.metrics.transfer.collapse_ranking import (
    CollapseRanking,
    RankCorrelation,
    Ranked,
    rank_by_collapse,
    rank_correlation,
)
from nc_tools.metrics.transfer.few_shot import imprint_accuracy, nearest_class_mean
from nc_tools.metrics.transfer.knn_accuracy import knn_accuracy
from nc_tools.metrics.transfer.probe import Probe, fit_probe, fit_ridge_probe, linear_probe, ridge_probe
from nc_tools.metrics.transfer.transfer_report import transfer_report
from nc_tools.metrics.uniform_accuracy import uniform_accuracy

__all__ = [
    "CONFORMAL_METHODS",
    "AffineScaling",
    "CollapseRanking",
    "ConformalMethod",
    "DebiasedError",
    "GeometricComplexity",
    "PerClass",
    "Probe",
    "RankCorrelation",
    "Ranked",
    "ReliabilityBins",
    "RiskCoverage",
    "SELIGeometry",
    "Suspects",
    "anchor_transition",
    "brier_decomposition",
    "calibration",
    "checked_transition",
    "class_coverage",
    "classification",
    "classwise_calibration_error",
    "collapse_from_moments",
    "confident_classes",
    "confident_joint",
    "confident_transition",
    "conformal_scores",
    "conformal_sets",
    "confusion_transition",
    "cosine_collapse",
    "counted_transition",
    "debiased_calibration_error",
    "dilation",
    "equal_mass_calibration_error",
    "expected_calibration_error",
    "fit_conformal",
    "fit_dirichlet_scaling",
    "fit_probe",
    "fit_ridge_probe",
    "fit_temperature",
    "fit_vector_scaling",
    "geometric_complexity",
    "grouped_calibration",
    "hyperspherical_uniformity",
    "imprint_accuracy",
    "kernel_calibration_error",
    "knn_accuracy",
    "layer_alignment",
    "linear_probe",
    "memorization",
    "minority_collapse",
    "moment_alignment",
    "nearest_class_mean",
    "neural_collapse",
    "outlier_orthogonality",
    "per_class",
    "precision_at",
    "rank_by_collapse",
    "rank_correlation",
    "rank_suspects",
    "regression_collapse",
    "reliability_bins",
    "ridge_probe",
    "risk_coverage",
    "selective_accuracy",
    "seli_distance",
    "seli_geometry",
    "set_measures",
    "stable_rank",
    "stable_ranks",
    "subgroup_collapse",
    "tagwise_average",
    "top_label_calibration_error",
    "transfer_report",
    "transition_error",
    "transition_problem",
    "uniform_accuracy",
    "uniform_duality",
    "variability_collapse_index",
]
