"""One plain training loop, and what it is configured with."""

from nc_tools.training.config import OptimConfig, TrainConfig
from nc_tools.training.loop import Fitted, fit
from nc_tools.training.meter import NonFiniteLossError
from nc_tools.training.sharpness import SAM, AsymmetricSharpnessAware, SharpnessAware, still
from nc_tools.training.terms import batch_terms

__all__ = [
    "SAM",
    "AsymmetricSharpnessAware",
    "Fitted",
    "NonFiniteLossError",
    "OptimConfig",
    "SharpnessAware",
    "TrainConfig",
    "batch_terms",
    "fit",
    "still",
]
