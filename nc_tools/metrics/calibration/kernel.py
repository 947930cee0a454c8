"""The kernel calibration error: calibration of the whole probability vector, without bins."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores

_ROWS = 1024
_MEDIAN_SAMPLES = 1000


def kernel_calibration_error(logits: Tensor, labels: Tensor, bandwidth: float | None = None) -> float:
    """Return the unbiased squared kernel calibration error (SKCE) of the whole probability vector.

    SKCE = mean over i != j of (e_i . e_j) exp(-||p_i - p_j||_1 / (2 nu)), with e_i = onehot(y_i) - p_i: zero in
    expectation exactly if P(y | p) = p for all p (full or "strong" calibration), which no binned error measures. It is
    unbiased, so it can be negative. Compare it with zero and between models, only at equal bandwidth.

    O(N^2 K) time, O(N K) memory: a few seconds at N = 10,000, K = 100 on two cores.

    Source: Widmann, Lindsten and Zachariah (2019), "Calibration tests in multi-class classification", lemma 2, with the
    exponential kernel on the total variation distance times the identity.

    Args:
        logits: (N, K), N >= 2.
        labels: (N,).
        bandwidth: nu; None for the median total variation distance between samples (at most 1000 of them).

    Returns:
        A number from -2/(N - 1) to 2.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If there is one sample only, the bandwidth is not positive, or as ``calibration``.

    Example:
        >>> round(kernel_calibration_error(torch.zeros(4, 2), torch.tensor([0, 0, 0, 0]), bandwidth=1.0), 6)
        0.5
    """
    scores, target = checked_scores(logits, labels)
    count = len(target)
    if count < 2:
        raise ValueError(f"the kernel calibration error compares pairs of samples and needs at least 2, got {count}")
    p = scores.double().softmax(dim=1)
    if bandwidth is None:
        bandwidth = _median_distance(p)
    elif not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}: leave it out to use the median distance")
    error = -p.scatter_add(1, target[:, None], torch.full_like(p[:, :1], -1.0))
    total = torch.zeros((), dtype=torch.float64, device=p.device)
    for rows, row_errors in zip(torch.split(p, _ROWS), torch.split(error, _ROWS), strict=True):
        total += ((row_errors @ error.T) * torch.exp(-torch.cdist(rows, p, p=1) / (2 * bandwidth))).sum()
    total -= error.square().sum()  # pairs of a sample with itself
    return float(total / (count * (count - 1)))


def _median_distance(p: Tensor) -> float:
    """Return the median total variation distance, or 1 if it is zero."""
    subset = p[:: -(-len(p) // _MEDIAN_SAMPLES)]
    place = torch.triu_indices(len(subset), len(subset), offset=1, device=p.device)
    median = float((torch.cdist(subset, subset, p=1)[place[0], place[1]] / 2).median()) if len(subset) > 1 else 0.0
    return median if median > 0 else 1.0
