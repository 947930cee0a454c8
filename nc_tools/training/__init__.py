"""One plain training loop, and what it is configured with."""

from nc_tools.training.config import OptimConfig, TrainConfig
from nc_tools.training.loop import Fitted, fit
from nc_tools.training.meter import NonFiniteLossError

__all__ = ["Fitted", "NonFiniteLossError", "OptimConfig", "TrainConfig", "fit"]
