"""The decomposition of the Brier score into reliability, resolution and uncertainty."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_bins, checked_scores


def brier_decomposition(logits: Tensor, labels: Tensor, num_bins: int = 15) -> dict[str, float]:
    """Return the parts of the Brier score, summed over classes: brier = reliability - resolution + uncertainty.

        reliability  sum_k sum_b (n_bk / N) (p_bk - f_bk)^2       miscalibration, 0 is best
        resolution   sum_k sum_b (n_bk / N) (f_bk - f_k)^2 - within-bin terms, higher is better
        uncertainty  sum_k f_k (1 - f_k)                          depends on the labels alone

    p_bk is the mean probability of class k in bin b, f_bk the frequency of class k in that bin, f_k its frequency in
    all samples. The within-bin terms (variance of the probabilities, minus twice their covariance with the labels) make
    the sum exact for probabilities that differ within a bin.

    Source: Murphy (1973); Stephenson, Coelho and Jolliffe (2008), equation 5, for the within-bin terms.

    Args:
        logits: (N, K), N >= 1.
        labels: (N,).
        num_bins: Number of bins of equal width for each class's probability.

    Returns:
        "brier", "reliability", "resolution", "uncertainty".

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If ``num_bins`` is below 1, or as ``calibration``.

    Example:
        >>> parts = brier_decomposition(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
        >>> parts["brier"], parts["reliability"], parts["resolution"], parts["uncertainty"]
        (0.5, 0.0, 0.0, 0.5)
    """
    scores, target = checked_scores(logits, labels)
    p = scores.double().softmax(dim=1)
    count, classes = p.shape
    truth = torch.zeros_like(p).scatter_(1, target[:, None], 1.0)
    edges = torch.arange(1, checked_bins(num_bins), dtype=torch.float64, device=p.device) / num_bins
    cell = (torch.bucketize(p, edges) + num_bins * torch.arange(classes, device=p.device)).flatten()
    columns = torch.stack([torch.ones_like(p), p, truth], dim=2).flatten(0, 1)
    size, mean_p, mean_f = (
        torch.zeros(classes * num_bins, 3, dtype=p.dtype, device=p.device).index_add_(0, cell, columns).T
    )
    mean_p, mean_f = mean_p / size.clamp(min=1), mean_f / size.clamp(min=1)
    frequency = truth.mean(0)
    class_frequency = frequency.repeat_interleave(num_bins)
    within_bins = ((p.flatten() - mean_p[cell]).square() - 2 * (p.flatten() - mean_p[cell]) * (truth.flatten())).sum()
    parts = {
        "brier": (p - truth).square().sum() / count,
        "reliability": (size * (mean_p - mean_f).square()).sum() / count,
        "resolution": ((size * (mean_f - class_frequency).square()).sum() - within_bins) / count,
        "uncertainty": (frequency * (1 - frequency)).sum(),
    }
    return dict(zip(parts, torch.stack(list(parts.values())).tolist(), strict=True))
