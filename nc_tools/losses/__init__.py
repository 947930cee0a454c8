"""Losses as modules, and as functions that compute the same.

A loss that needs only logits is called as ``loss(logits, labels)``, as in PyTorch. All losses are called as
``loss(outputs, batch)`` by the training loop; in a loop of your own ``nc_tools.watch(model)`` gives the outputs.
"""

from nc_tools.losses._class_affine import ClassAffineCrossEntropyLoss, affine_cross_entropy, affine_logits
from nc_tools.losses._class_centers import ClassCenters
from nc_tools.losses._rows import kept_mean
from nc_tools.losses.active_passive import (
    ActivePassiveLoss,
    NCEAndMAELoss,
    NCEAndRCELoss,
    mean_absolute_error,
    normalized_cross_entropy,
)
from nc_tools.losses.background import BackgroundCrossEntropyLoss
from nc_tools.losses.binary_cross_entropy import BinaryCrossEntropyLoss, binary_cross_entropy
from nc_tools.losses.class_alignment import ClassAlignmentLoss, class_alignment
from nc_tools.losses.class_compactness import ClassCompactnessLoss, class_compactness
from nc_tools.losses.class_conditional import ClassConditionalInfoNCELoss, class_conditional_info_nce
from nc_tools.losses.class_spread import ClassSpreadLoss, class_spread
from nc_tools.losses.class_weights import class_balanced_weights, effective_number
from nc_tools.losses.coding_rate import CodingRateLoss, coding_rate_gain
from nc_tools.losses.cosine_regression import CosineRegressionLoss, cosine_regression
from nc_tools.losses.cross_entropy import ClassWiseSmoothing, CrossEntropyLoss, smoothed_cross_entropy
from nc_tools.losses.dhel import DHELLoss, decoupled_info_nce
from nc_tools.losses.dot_regression import DotRegressionLoss, dot_regression
from nc_tools.losses.early_learning import EarlyLearningLoss
from nc_tools.losses.feature_decay import FeatureDecayLoss, feature_decay
from nc_tools.losses.feature_entropy import FeatureEntropyLoss, feature_entropy
from nc_tools.losses.focal import FocalLoss, focal_loss
from nc_tools.losses.forward_correction import ForwardCorrectionLoss, forward_corrected
from nc_tools.losses.generalized_cross_entropy import GeneralizedCrossEntropyLoss, generalized_cross_entropy
from nc_tools.losses.label_relaxation import LabelRelaxationLoss, label_relaxation
from nc_tools.losses.ldam import LDAMLoss, ldam_margins
from nc_tools.losses.logit_adjusted import (
    ARBLoss,
    BalancedSoftmaxLoss,
    LogitAdjustedLoss,
    adjust_logits,
    log_prior,
    logit_adjusted_cross_entropy,
)
from nc_tools.losses.logit_loss import LogitLoss
from nc_tools.losses.logit_norm import LogitNormLoss, logit_norm
from nc_tools.losses.loss_term import LossTerm
from nc_tools.losses.mean_squared import MeanSquaredLoss, mean_squared
from nc_tools.losses.ntce import NONLLoss, NTCELoss, nonl, ntce
from nc_tools.losses.orthogonal_outliers import OrthogonalOutliersLoss, orthogonal_outliers
from nc_tools.losses.outlier_exposure import OutlierExposureLoss, outlier_exposure
from nc_tools.losses.per_sample import PerSampleLoss, class_mean, weighted_mean
from nc_tools.losses.pick_all_label import PickAllLabelLoss, pick_all_label
from nc_tools.losses.reweighting import ClassBalancedLoss, DeferredReweightingLoss
from nc_tools.losses.spread import SpreadLoss, class_attraction
from nc_tools.losses.supervised_contrastive import (
    BalancedSupConLoss,
    SupConLoss,
    balanced_supervised_contrastive,
    supervised_contrastive,
)
from nc_tools.losses.symmetric_cross_entropy import SymmetricCrossEntropyLoss, reverse_cross_entropy
from nc_tools.losses.vector_scaling import VectorScalingLoss, scaling_factors
from nc_tools.losses.weighted_sum import WeightedSumLoss, WeightedTerm, term

__all__ = [
    "ARBLoss",
    "ActivePassiveLoss",
    "BackgroundCrossEntropyLoss",
    "BalancedSoftmaxLoss",
    "BalancedSupConLoss",
    "BinaryCrossEntropyLoss",
    "ClassAffineCrossEntropyLoss",
    "ClassAlignmentLoss",
    "ClassBalancedLoss",
    "ClassCenters",
    "ClassCompactnessLoss",
    "ClassConditionalInfoNCELoss",
    "ClassSpreadLoss",
    "ClassWiseSmoothing",
    "CodingRateLoss",
    "CosineRegressionLoss",
    "CrossEntropyLoss",
    "DHELLoss",
    "DeferredReweightingLoss",
    "DotRegressionLoss",
    "EarlyLearningLoss",
    "FeatureDecayLoss",
    "FeatureEntropyLoss",
    "FocalLoss",
    "ForwardCorrectionLoss",
    "GeneralizedCrossEntropyLoss",
    "LDAMLoss",
    "LabelRelaxationLoss",
    "LogitAdjustedLoss",
    "LogitLoss",
    "LogitNormLoss",
    "LossTerm",
    "MeanSquaredLoss",
    "NCEAndMAELoss",
    "NCEAndRCELoss",
    "NONLLoss",
    "NTCELoss",
    "OrthogonalOutliersLoss",
    "OutlierExposureLoss",
    "PerSampleLoss",
    "PickAllLabelLoss",
    "SpreadLoss",
    "SupConLoss",
    "SymmetricCrossEntropyLoss",
    "VectorScalingLoss",
    "WeightedSumLoss",
    "WeightedTerm",
    "adjust_logits",
    "affine_cross_entropy",
    "affine_logits",
    "balanced_supervised_contrastive",
    "binary_cross_entropy",
    "class_alignment",
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
    "kept_mean",
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
