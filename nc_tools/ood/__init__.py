"""Out-of-distribution detection: scores, all with higher meaning in-distribution, and how well they separate sets.

A score says what it fits on, takes logits and the features that enter the head's product, and accepts heads
without a bias and frames that are buffers. What each one means, and what it must not be used for, is in
docs/measures.md.
"""

from nc_tools.ood.fdbd import FDBD
from nc_tools.ood.grood import GROOD
from nc_tools.ood.knn import KNN
from nc_tools.ood.logit_scores import GEN, MSP, Energy, MaxLogit
from nc_tools.ood.mahalanobis import RMDS, Mahalanobis
from nc_tools.ood.nci import NCI
from nc_tools.ood.neco import NECO
from nc_tools.ood.ood_report import SCORES, ood_report
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError
from nc_tools.ood.separation import auroc_interval, separation
from nc_tools.ood.vim import ViM

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
