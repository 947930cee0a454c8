"""Losses over the records that heads and loaders give, and the free functions below them."""

from nc_tools.losses.active_passive import (
    ActivePassive,
    NCEAndMAE,
    NCEAndRCE,
    mean_absolute_error,
    normalized_cross_entropy,
)
from nc_tools.losses.affine import AffineCrossEntropy, affine_cross_entropy, affine_logits
from nc_tools.losses.alignment import Alignment, alignment
from nc_tools.losses.background import BackgroundCrossEntropy
from nc_tools.losses.base import LossTerm
from nc_tools.losses.binary import BinaryCrossEntropy, binary_cross_entropy
from nc_tools.losses.class_centres import ClassCentres
from nc_tools.losses.class_conditional import ClassConditionalInfoNCE, class_conditional_info_nce
from nc_tools.losses.class_spread import ClassSpread, class_spread
from nc_tools.losses.class_weights import class_balanced_weights, effective_number
from nc_tools.losses.coding_rate import CodingRate, coding_rate_gain
from nc_tools.losses.compactness import ClassCompactness, class_compactness
from nc_tools.losses.composition import Term, WeightedSum, term
from nc_tools.losses.cosine_regression import CosineRegression, cosine_regression
from nc_tools.losses.cross_entropy import ClassWiseSmoothing, CrossEntropy, smoothed_cross_entropy
from nc_tools.losses.dhel import DHEL, decoupled_info_nce
from nc_tools.losses.dot_regression import DotRegression, dot_regression
from nc_tools.losses.early_learning import EarlyLearning
from nc_tools.losses.feature_decay import FeatureDecay, feature_decay
from nc_tools.losses.feature_entropy import FeatureEntropy, feature_entropy
from nc_tools.losses.focal import Focal, focal_loss
from nc_tools.losses.forward_correction import ForwardCorrection, forward_corrected
from nc_tools.losses.generalized_cross_entropy import GeneralizedCrossEntropy, generalized_cross_entropy
from nc_tools.losses.label_relaxation import LabelRelaxation, label_relaxation
from nc_tools.losses.ldam import LDAM, ldam_margins
from nc_tools.losses.logit_adjusted import (
    ARB,
    BalancedSoftmax,
    LogitAdjusted,
    adjust_logits,
    log_prior,
    logit_adjusted_cross_entropy,
)
from nc_tools.losses.logit_norm import LogitNorm, logit_norm
from nc_tools.losses.mean_squared import MeanSquared, mean_squared
from nc_tools.losses.ntce import NONL, NTCE, nonl, ntce
from nc_tools.losses.orthogonal_outliers import OrthogonalOutliers, orthogonal_outliers
from nc_tools.losses.outlier_exposure import OutlierExposure, outlier_exposure
from nc_tools.losses.per_sample import PerSampleLoss, class_mean, weighted_mean
from nc_tools.losses.pick_all_label import PickAllLabel, pick_all_label
from nc_tools.losses.reweighting import ClassBalanced, DeferredReweighting
from nc_tools.losses.schedule import Constant, Cosine, LinearRamp, Schedule, Step
from nc_tools.losses.spread import Spread, class_attraction
from nc_tools.losses.supervised_contrastive import (
    BalancedSupCon,
    SupCon,
    balanced_supervised_contrastive,
    supervised_contrastive,
)
from nc_tools.losses.symmetric_cross_entropy import SymmetricCrossEntropy, reverse_cross_entropy
from nc_tools.losses.vector_scaling import VectorScaling, scaling_factors

__all__ = [
    "ARB",
    "DHEL",
    "LDAM",
    "NONL",
    "NTCE",
    "ActivePassive",
    "AffineCrossEntropy",
    "Alignment",
    "BackgroundCrossEntropy",
    "BalancedSoftmax",
    "BalancedSupCon",
    "BinaryCrossEntropy",
    "ClassBalanced",
    "ClassCentres",
    "ClassCompactness",
    "ClassConditionalInfoNCE",
    "ClassSpread",
    "ClassWiseSmoothing",
    "CodingRate",
    "Constant",
    "Cosine",
    "CosineRegression",
    "CrossEntropy",
    "DeferredReweighting",
    "DotRegression",
    "EarlyLearning",
    "FeatureDecay",
    "FeatureEntropy",
    "Focal",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "LabelRelaxation",
    "LinearRamp",
    "LogitAdjusted",
    "LogitNorm",
    "LossTerm",
    "MeanSquared",
    "NCEAndMAE",
    "NCEAndRCE",
    "OrthogonalOutliers",
    "OutlierExposure",
    "PerSampleLoss",
    "PickAllLabel",
    "Schedule",
    "Spread",
    "Step",
    "SupCon",
    "SymmetricCrossEntropy",
    "Term",
    "VectorScaling",
    "WeightedSum",
    "adjust_logits",
    "affine_cross_entropy",
    "affine_logits",
    "alignment",
    "balanced_supervised_contrastive",
    "binary_cross_entropy",
    "class_attraction",
    "class_balanced_weights",
    "class_compactness",
    "class_conditional_info_nce",
    "class_mean",
    "class_spread",
    "coding_rate_gain",
    "cosine_regression",
    "decoupled_info_nce",
    "dot_regression",
    "effective_number",
    "feature_decay",
    "feature_entropy",
    "focal_loss",
    "forward_corrected",
    "generalized_cross_entropy",
    "label_relaxation",
    "ldam_margins",
    "log_prior",
    "logit_adjusted_cross_entropy",
    "logit_norm",
    "mean_absolute_error",
    "mean_squared",
    "nonl",
    "normalized_cross_entropy",
    "ntce",
    "orthogonal_outliers",
    "outlier_exposure",
    "pick_all_label",
    "reverse_cross_entropy",
    "scaling_factors",
    "smoothed_cross_entropy",
    "supervised_contrastive",
    "term",
    "weighted_mean",
]
