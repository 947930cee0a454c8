"""Collapse of a whole model: one pass over a loader, layer by layer, and a report of it."""

from nc_tools.measuring.survey import Survey, measure, survey
from nc_tools.measuring.taps import candidate_layers, default_layers, pooled

__all__ = ["Survey", "candidate_layers", "default_layers", "measure", "pooled", "survey"]
