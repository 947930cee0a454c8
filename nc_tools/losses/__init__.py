"""Losses over the records that heads and loaders give, and the free functions below them."""

from nc_tools.losses.active_passive import (
    ActivePassive,
    NCEAndMAE,
    NCEAndRCE,
    mean_absolute_error,
    normalized_cross_entropy,
)
from nc_tools.losses.base import LossTerm
from nc_tools.losses.cross_entropy import CrossEntropy
from nc_tools.losses.dot_regression import DotRegression, dot_regression
from nc_tools.losses.early_learning import EarlyLearning
from nc_tools.losses.forward_correction import ForwardCorrection, forward_corrected
from nc_tools.losses.generalized_cross_entropy import GeneralizedCrossEntropy, generalized_cross_entropy
from nc_tools.losses.logit_adjusted import LogitAdjusted, adjust_logits, log_prior, logit_adjusted_cross_entropy
from nc_tools.losses.symmetric_cross_entropy import SymmetricCrossEntropy, reverse_cross_entropy

__all__ = [
    "ActivePassive",
    "CrossEntropy",
    "DotRegression",
    "EarlyLearning",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "LogitAdjusted",
    "LossTerm",
    "NCEAndMAE",
    "NCEAndRCE",
    "SymmetricCrossEntropy",
    "adjust_logits",
    "dot_regression",
    "forward_corrected",
    "generalized_cross_entropy",
    "log_prior",
    "logit_adjusted_cross_entropy",
    "mean_absolute_error",
    "normalized_cross_entropy",
    "reverse_cross_entropy",
]
