"""The training loop, its settings, and second stages, which retrain or adjust the classifier afterwards."""

from nc_tools.training.decoupled.post_hoc import NearestClassMean, TauNormalize
from nc_tools.training.decoupled.retrain import LearnableWeightScaling, RetrainClassifier
from nc_tools.training.decoupled.stage import PostHocStage, RetrainingStage, SecondStage, retrain
from nc_tools.training.head_start import (
    ClassMeanStart,
    HeadStart,
    KMeansStart,
    LeastSquaresStart,
    LogisticStart,
    StartSamples,
)
from nc_tools.training.loop import Fitted, fit
from nc_tools.training.meter import NonFiniteLossError
from nc_tools.training.mixed_loss import batch_terms
from nc_tools.training.processes import Processes
from nc_tools.training.sam import SAM, AsymmetricSharpnessAware, SharpnessAware, frozen_statistics
from nc_tools.training.train_config import OptimConfig, TrainConfig
from nc_tools.training.trained_part import PartlyTrained, TrainedPart, lora_targets, train_part

__all__ = [
    "SAM",
    "AsymmetricSharpnessAware",
    "ClassMeanStart",
    "Fitted",
    "HeadStart",
    "KMeansStart",
    "LearnableWeightScaling",
    "LeastSquaresStart",
    "LogisticStart",
    "NearestClassMean",
    "NonFiniteLossError",
    "OptimConfig",
    "PartlyTrained",
    "PostHocStage",
    "Processes",
    "RetrainClassifier",
    "RetrainingStage",
    "SecondStage",
    "SharpnessAware",
    "StartSamples",
    "TauNormalize",
    "TrainConfig",
    "TrainedPart",
    "batch_terms",
    "fit",
    "frozen_statistics",
    "lora_targets",
    "retrain",
    "train_part",
]
