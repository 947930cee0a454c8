"""Out-of-distribution detection: scores where higher means in-distribution, and how well they separate two sets.

Fit a score on the features, logits and labels of a training set, then call ``score_samples``. :func:`ood_report` does
that for all scores and all sets. docs/measures.md says what each score means and when not to use it.
"""

# The order of these imports is the order of SCORES, and so of reports.
# isort: off
from nc_tools.ood.logit_scores import MSP, MaxLogit, Energy, GEN
from nc_tools.ood.knn import KNN
from nc_tools.ood.mahalanobis import Mahalanobis, RMDS
from nc_tools.ood.vim import ViM
from nc_tools.ood.neco import NECO
from nc_tools.ood.nci import NCI
from nc_tools.ood.fdbd import FDBD
from nc_tools.ood.grood import GROOD

# isort: on
from nc_tools.ood.ood_report import ood_report
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError, package_scores
from nc_tools.ood.separation import auroc_interval, separation

SCORES: tuple[type[OODScore], ...] = package_scores()
"""The scores that a report holds, in its order, each with its default settings."""

__all__ = [
    "FDBD",
    "GEN",
    "GROOD",
    "KNN",
    "MSP",
    "NCI",
    "NECO",
    "RMDS",
    "SCORES",
    "Energy",
    "Mahalanobis",
    "MaxLogit",
    "OODScore",
    "UndefinedScoreError",
    "ViM",
    "auroc_interval",
    "ood_report",
    "separation",
]
