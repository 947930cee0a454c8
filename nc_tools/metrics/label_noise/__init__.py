"""Metrics for noisy labels: memorization, dilation, suspect labels and transition matrices."""
