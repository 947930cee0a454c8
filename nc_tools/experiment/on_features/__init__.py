"""Comparisons of heads on fixed features: all runs of a seed train side by side, in one process."""
