"""Transfer of a trained backbone to a target task: features of its layers, and fine-tuning.

Measures of frozen features (probes, neighbors, class centers) are in ``nc_tools.metrics``.
"""

from nc_tools.transfer.fine_tuning import FineTuned, FineTuning, fine_tune
from nc_tools.transfer.fine_tuning_methods import (
    FineTuningMethod,
    Full,
    ProbeThenFull,
    SkipConnection,
    least_nc1_layer,
)
from nc_tools.transfer.layer_features import layer_features
from nc_tools.transfer.skip_backbone import SkipBackbone
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
    "fine_tune",
    "image_target",
    "layer_features",
    "least_nc1_layer",
]
