"""Uniform accuracy: accuracy with one threshold for all samples."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores


def uniform_accuracy(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the largest share of samples that one common threshold classifies correctly.

    A threshold t classifies a sample correctly if its own class scores above t and every other class below:
    z_y > t > max_{j != y} z_j. Accuracy lets every sample have its own threshold; here all samples share one,

        uniform_accuracy = max_t (1 / N) #{i : max_{j != y_i} z_ij < t < z_iy_i}

    so it is never larger than the accuracy. The gap shows how well scores of different samples can be compared, which
    verification, open-set recognition and rejection need. Binary cross-entropy trains for it, cross-entropy does not.
    Source: Li et al. 2024 (uniform classification) and 2025. Adding a number to all logits of one sample changes the
    value, unlike other measures of logits: use the logits as the head gives them. If a loss learned thresholds b_k,
    give ``logits - thresholds``, whose common threshold is about 0.

    The result is exact and costs O(N K + N log N). Each correctly classified sample covers an open interval of
    thresholds. The largest number of intervals that contain one point is the maximum of a running sum over their sorted
    ends: plus one at a start, minus one at an end.

    Args:
        logits: (N, K), K >= 2.
        labels: (N,).

    Returns:
        "uniform_accuracy" in [0, 1], and "uniform_threshold", the middle of the first interval of best thresholds, in
        units of the logits. Without a correctly classified sample there is no threshold, and no such key.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If shapes do not fit, K < 2, there is no sample, a label is out of range or a logit is not finite.

    Example:
        >>> logits = torch.tensor([[4.0, 1.0], [0.0, 3.0], [9.0, 6.0]])  # all correct, each at its own level
        >>> uniform_accuracy(logits, torch.tensor([0, 1, 0]))
        {'uniform_accuracy': 0.6666666666666666, 'uniform_threshold': 2.0}
    """
    scores, target = checked_scores(logits, labels)
    if scores.shape[1] < 2:
        raise ValueError("uniform accuracy needs at least 2 classes, got 1")
    own = scores.gather(1, target[:, None])[:, 0]
    best_other = scores.scatter(1, target[:, None], -torch.inf).amax(dim=1)
    low, high = best_other.double(), own.double()
    right = high > low
    # Ends stand before starts, and the sort is stable: intervals that only touch do not overlap.
    ends = torch.cat([high[right], low[right]])
    steps = torch.cat([torch.full_like(high[right], -1), torch.ones_like(low[right])])
    if not len(ends):
        return {"uniform_accuracy": 0.0}
    edges, order = ends.sort(stable=True)
    covered = steps[order].cumsum(0)
    best = covered.argmax()
    most, start, stop = torch.stack([covered[best], edges[best], edges[best + 1]]).tolist()
    return {"uniform_accuracy": most / len(target), "uniform_threshold": (start + stop) / 2}
