"""Losses over the records that heads and loaders give, and the free functions below them."""

from nc_tools.losses.alignment import Alignment, alignment
from nc_tools.losses.base import LossTerm
from nc_tools.losses.class_centres import ClassCentres
from nc_tools.losses.class_conditional import ClassConditionalInfoNCE, class_conditional_info_nce
from nc_tools.losses.class_spread import ClassSpread, class_spread
from nc_tools.losses.coding_rate import CodingRate, coding_rate_gain
from nc_tools.losses.compactness import ClassCompactness, class_compactness
from nc_tools.losses.composition import Term, WeightedSum, term
from nc_tools.losses.cross_entropy import CrossEntropy
from nc_tools.losses.dhel import DHEL, decoupled_info_nce
from nc_tools.losses.dot_regression import DotRegression, dot_regression
from nc_tools.losses.feature_decay import FeatureDecay, feature_decay
from nc_tools.losses.feature_entropy import FeatureEntropy, feature_entropy
from nc_tools.losses.logit_adjusted import LogitAdjusted, adjust_logits, log_prior, logit_adjusted_cross_entropy
from nc_tools.losses.orthogonal_outliers import OrthogonalOutliers, orthogonal_outliers
from nc_tools.losses.pick_all_label import PickAllLabel, pick_all_label
from nc_tools.losses.schedule import Constant, Cosine, LinearRamp, Schedule, Step
from nc_tools.losses.spread import Spread, class_attraction
from nc_tools.losses.supervised_contrastive import (
    BalancedSupCon,
    SupCon,
    balanced_supervised_contrastive,
    supervised_contrastive,
)

__all__ = [
    "DHEL",
    "Alignment",
    "BalancedSupCon",
    "ClassCentres",
    "ClassCompactness",
    "ClassConditionalInfoNCE",
    "ClassSpread",
    "CodingRate",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "DotRegression",
    "FeatureDecay",
    "FeatureEntropy",
    "LinearRamp",
    "LogitAdjusted",
    "LossTerm",
    "OrthogonalOutliers",
    "PickAllLabel",
    "Schedule",
    "Spread",
    "Step",
    "SupCon",
    "Term",
    "WeightedSum",
    "adjust_logits",
    "alignment",
    "balanced_supervised_contrastive",
    "class_attraction",
    "class_compactness",
    "class_conditional_info_nce",
    "class_spread",
    "coding_rate_gain",
    "decoupled_info_nce",
    "dot_regression",
    "feature_decay",
    "feature_entropy",
    "log_prior",
    "logit_adjusted_cross_entropy",
    "orthogonal_outliers",
    "pick_all_label",
    "supervised_contrastive",
    "term",
]
