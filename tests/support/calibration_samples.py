"""Logits with labels drawn from a softmax of them, and slow forms of probabilities and bins."""

import math

import torch


def draw_logits(seed, n=200, k=4, sharpness=2.0, honest=0.5):
    """Return logits, and labels drawn from softmax(honest * logits): calibrated where honest is 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(n, k, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((honest * logits).softmax(1), 1, generator=generator).flatten()
    return logits, labels


def softmax(row):
    """Return the softmax of a list of numbers."""
    top = max(row)
    e = [math.exp(z - top) for z in row]
    return [v / sum(e) for v in e]


def probabilities_and_labels(logits, labels):
    """Return the softmax of every row, and the labels, as lists."""
    return [softmax(row) for row in logits.tolist()], labels.tolist()


def bin_of(p, bins):
    """Return which of ``bins`` bins of equal width holds a probability."""
    return next(b for b in range(bins) if p <= (b + 1) / bins or b == bins - 1)
