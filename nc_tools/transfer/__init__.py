"""Transfer that looks inside a model or trains it further: layers, fine-tuning, target tasks.

Readers of frozen features (probes, neighbors, class centers) are in ``nc_tools.metrics``.
"""

from nc_tools.transfer.fine_tuning import FineTuned, FineTuning, fine_tune
from nc_tools.transfer.fine_tuning_methods import (
    FineTuningMethod,
    Full,
    ProbeThenFull,
    SkipBackbone,
    SkipConnection,
    least_nc1_layer,
)
from nc_tools.transfer.layers import candidate_layers, layer_features
from nc_tools.transfer.target_task import Target, image_target

__all__ = [
    "FineTuned",
    "FineTuning",
    "FineTuningMethod",
    "Full",
    "ProbeThenFull",
    "SkipBackbone",
    "SkipConnection",
    "Target",
    "candidate_layers",
    "fine_tune",
    "image_target",
    "layer_features",
    "least_nc1_layer",
]
