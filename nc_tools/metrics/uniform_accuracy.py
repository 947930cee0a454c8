"""Accuracy when one threshold must serve all samples."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores


def uniform_accuracy(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the largest share of samples that one threshold, common to all, classifies.

    A sample is classified by a threshold t if its own class scores above it and every other class below:
    z_y > t > max_{j != y} z_j. Accuracy lets each sample have a threshold of its own; here there is one for all,

        uniform_accuracy = max_t (1 / N) #{i : max_{j != y_i} z_ij < t < z_iy_i}

    so it is never above the accuracy, and the gap says how far scores of different samples can be compared: what
    verification, open-set recognition and rejection need. Cross-entropy does not ask for it, binary cross-entropy
    does. Source: Li et al. 2024 (uniform classification) and 2025. It changes when a number is added to one sample's
    logits, which no other measure of logits here but temperature does: read it on logits as the head gives them.
    Where a loss learned thresholds b_k, give it ``logits - thresholds``, whose common threshold is about 0.

    Exact, in O(N K + N log N): each sample that is right covers an open interval of thresholds, and the largest
    number of intervals over one point is a running sum over their sorted ends.

    Args:
        logits: (N, K), K >= 2.
        labels: (N,).

    Returns:
        "uniform_accuracy" in [0, 1], and "uniform_threshold", the middle of the (first) best stretch of thresholds, in
        units of the logits; without a sample that is right there is no threshold and no such key.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If shapes do not fit, K < 2, there is no sample, a label is out of range or a logit is not
            finite.

    Example:
        >>> logits = torch.tensor([[4.0, 1.0], [0.0, 3.0], [9.0, 6.0]])  # all right, each on its own level
        >>> uniform_accuracy(logits, torch.tensor([0, 1, 0]))
        {'uniform_accuracy': 0.6666666666666666, 'uniform_threshold': 2.0}
    """
    scores, target = checked_scores(logits, labels)
    if scores.shape[1] < 2:
        raise ValueError("uniform accuracy needs at least 2 classes, got 1")
    own = scores.gather(1, target.unsqueeze(1))
    other = scores.scatter(1, target.unsqueeze(1), -torch.inf).amax(dim=1)
    low, high = other.double(), own.squeeze(1).double()
    right = high > low
    # Ends stand before starts, and the sort is stable: intervals that only touch do not overlap.
    ends = torch.cat([high[right], low[right]])
    steps = torch.cat([torch.full_like(high[right], -1), torch.ones_like(low[right])])
    if not len(ends):
        return {"uniform_accuracy": 0.0}
    edges, order = ends.sort(stable=True)
    covered = steps[order].cumsum(0)
    best = covered.argmax()
    most, left, until = torch.stack([covered[best], edges[best], edges[best + 1]]).tolist()
    return {"uniform_accuracy": most / len(target), "uniform_threshold": (left + until) / 2}
