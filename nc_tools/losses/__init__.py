"""Losses over the records that heads and loaders give, and the free functions below them."""

from nc_tools.losses.affine import AffineCrossEntropy, affine_cross_entropy, affine_logits
from nc_tools.losses.background import BackgroundCrossEntropy
from nc_tools.losses.base import LossTerm
from nc_tools.losses.binary import BinaryCrossEntropy, binary_cross_entropy
from nc_tools.losses.class_weights import class_balanced_weights, effective_number
from nc_tools.losses.cosine_regression import CosineRegression, cosine_regression
from nc_tools.losses.cross_entropy import ClassWiseSmoothing, CrossEntropy, smoothed_cross_entropy
from nc_tools.losses.dot_regression import DotRegression, dot_regression
from nc_tools.losses.focal import Focal, focal_loss
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
from nc_tools.losses.per_sample import PerSampleLoss, class_mean, weighted_mean
from nc_tools.losses.reweighting import ClassBalanced, DeferredReweighting
from nc_tools.losses.vector_scaling import VectorScaling, scaling_factors

__all__ = [
    "ARB",
    "LDAM",
    "NONL",
    "NTCE",
    "AffineCrossEntropy",
    "BackgroundCrossEntropy",
    "BalancedSoftmax",
    "BinaryCrossEntropy",
    "ClassBalanced",
    "ClassWiseSmoothing",
    "CosineRegression",
    "CrossEntropy",
    "DeferredReweighting",
    "DotRegression",
    "Focal",
    "LabelRelaxation",
    "LogitAdjusted",
    "LogitNorm",
    "LossTerm",
    "MeanSquared",
    "PerSampleLoss",
    "VectorScaling",
    "adjust_logits",
    "affine_cross_entropy",
    "affine_logits",
    "binary_cross_entropy",
    "class_balanced_weights",
    "class_mean",
    "cosine_regression",
    "dot_regression",
    "effective_number",
    "focal_loss",
    "label_relaxation",
    "ldam_margins",
    "log_prior",
    "logit_adjusted_cross_entropy",
    "logit_norm",
    "mean_squared",
    "nonl",
    "ntce",
    "scaling_factors",
    "smoothed_cross_entropy",
    "weighted_mean",
]
