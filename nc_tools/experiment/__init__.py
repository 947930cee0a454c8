"""Comparisons of training methods: the methods (arms), the rules that they share (protocol), and all training runs."""

from nc_tools.experiment.model_config import ModelConfig
from nc_tools.experiment.recipe_cli import run_recipe
from nc_tools.experiment.run_config import Protocol, RunConfig, TunedParameter
from nc_tools.experiment.trained_model import TrainedModel, load_run

__all__ = ["ModelConfig", "Protocol", "RunConfig", "TrainedModel", "TunedParameter", "load_run", "run_recipe"]
