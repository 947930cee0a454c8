"""Losses over the records that heads and loaders give, and the free functions below them."""

from nc_tools.losses.background import BackgroundCrossEntropy
from nc_tools.losses.base import LossTerm
from nc_tools.losses.cross_entropy import CrossEntropy
from nc_tools.losses.dot_regression import DotRegression, dot_regression
from nc_tools.losses.logit_adjusted import LogitAdjusted, adjust_logits, log_prior, logit_adjusted_cross_entropy

__all__ = [
    "BackgroundCrossEntropy",
    "CrossEntropy",
    "DotRegression",
    "LogitAdjusted",
    "LossTerm",
    "adjust_logits",
    "dot_regression",
    "log_prior",
    "logit_adjusted_cross_entropy",
]
