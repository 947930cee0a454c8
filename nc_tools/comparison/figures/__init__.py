"""Figures of a comparison: forest plots, one panel per arm, and metrics over measured collapse."""
