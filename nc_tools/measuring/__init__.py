"""Measure the neural collapse of any trained model, layer by layer, and write a report."""

from nc_tools.measuring.measure import CollapseMeasurement, measure, measure_in_detail
from nc_tools.surgery.layer_choice import default_layers
from nc_tools.surgery.layers import candidate_layers, pooled

__all__ = ["CollapseMeasurement", "candidate_layers", "default_layers", "measure", "measure_in_detail", "pooled"]
