"""One plain training loop, what it is configured with, and what may follow it."""

from nc_tools.training.config import OptimConfig, TrainConfig
from nc_tools.training.loop import Fitted, fit
from nc_tools.training.meter import NonFiniteLossError
from nc_tools.training.post_hoc import NearestClassMean, TauNormalise
from nc_tools.training.retraining import LearnableWeightScaling, ReTrainClassifier
from nc_tools.training.second_stage import ClosedStage, RetrainedStage, SecondStage, retrain
from nc_tools.training.sharpness import SAM, AsymmetricSharpnessAware, SharpnessAware, still
from nc_tools.training.terms import batch_terms

__all__ = [
    "SAM",
    "AsymmetricSharpnessAware",
    "ClosedStage",
    "Fitted",
    "LearnableWeightScaling",
    "NearestClassMean",
    "NonFiniteLossError",
    "OptimConfig",
    "ReTrainClassifier",
    "RetrainedStage",
    "SecondStage",
    "SharpnessAware",
    "TauNormalise",
    "TrainConfig",
    "batch_terms",
    "fit",
    "retrain",
    "still",
]
