"""Comparisons: arms, the rules that they share, and the runs that follow from them."""

from nc_tools.experiment.config import Knob, ModelConfig, Protocol, RunConfig
from nc_tools.experiment.load import TrainedModel, load_run
from nc_tools.experiment.main import main

__all__ = ["Knob", "ModelConfig", "Protocol", "RunConfig", "TrainedModel", "load_run", "main"]
