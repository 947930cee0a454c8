"""Figures of a comparison: forest plots, small multiples, everything over collapse."""
