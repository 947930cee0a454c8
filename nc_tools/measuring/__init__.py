"""Measure any trained model: its neural collapse layer by layer, with a report, or all that a run measures."""

from nc_tools.measuring.evaluate import evaluate
from nc_tools.measuring.measure import CollapseMeasurement, measure, measure_in_detail
from nc_tools.surgery.layer_choice import default_layers
from nc_tools.surgery.layers import candidate_layers, pooled

__all__ = [
    "CollapseMeasurement",
    "candidate_layers",
    "default_layers",
    "evaluate",
    "measure",
    "measure_in_detail",
    "pooled",
]
