"""Measures for noisy labels: memorization, suspects, transition matrices, dilation."""
