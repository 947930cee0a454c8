"""Calibration errors by class: of each class's probability, and of the confidence within each predicted class."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_bins, checked_scores


def classwise_calibration_error(logits: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Return the classwise ECE: the calibration error of each class's probability, averaged over the classes.

    The error of class k is sum_b (n_bk / N) * |frequency_bk - probability_bk|.

    The probability of each class over *all* samples is binned in B bins of equal width and compared with the frequency
    of that class. This shows errors that the top label hides, such as a tail class whose probability is always too
    low. It is small by construction for many classes, since most probabilities are near 0: compare only at equal N and
    K.

    Source: Kull et al. (2019), "Beyond temperature scaling", section 2 (static calibration error of Nixon et al. 2019).

    Args:
        logits: (N, K), N >= 1.
        labels: (N,).
        num_bins: B, the number of bins.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If ``num_bins`` is below 1, or as ``calibration``.

    Example:
        >>> round(classwise_calibration_error(torch.zeros(2, 2), torch.tensor([0, 0])), 6)
        0.5
    """
    scores, target = checked_scores(logits, labels)
    p = scores.double().softmax(dim=1)
    count, classes = p.shape
    edges = torch.arange(1, checked_bins(num_bins), dtype=torch.float64, device=p.device) / num_bins
    gap = p.scatter_add(1, target[:, None], torch.full_like(p[:, :1], -1.0))
    cell = torch.bucketize(p, edges) + num_bins * torch.arange(classes, device=p.device)
    sums = torch.zeros(classes * num_bins, dtype=torch.float64, device=p.device)
    return float(sums.index_add_(0, cell.flatten(), gap.flatten()).abs().sum() / (count * classes))


def top_label_calibration_error(logits: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Return the strict top-label ECE, which compares confidence with accuracy within each predicted class.

    sum_{k, b} (n_kb / N) |accuracy_kb - confidence_kb| over the samples predicted as k with confidence in bin b. In the
    usual ECE, overconfidence in one class can cancel underconfidence in another; here it cannot, so the value is never
    smaller. It is biased upwards more than the ECE, since its cells hold fewer samples.

    Source: Gupta and Ramdas (2022), "Top-label calibration and multiclass-to-binary reductions", definition 1.

    Args:
        logits: (N, K), N >= 1.
        labels: (N,).
        num_bins: B, the number of bins.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If ``num_bins`` is below 1, or as ``calibration``.

    Example:
        >>> sure = torch.tensor([[0.0, 0.0, -99.0], [-99.0, 0.0, 0.01]])  # half sure of class 0, half sure of class 2
        >>> round(top_label_calibration_error(sure, torch.tensor([0, 1])), 2)
        0.5
    """
    scores, target = checked_scores(logits, labels)
    edges = torch.arange(1, checked_bins(num_bins), dtype=torch.float64, device=scores.device) / num_bins
    confidence, guess = scores.double().softmax(dim=1).max(dim=1)
    cell = torch.bucketize(confidence, edges) + num_bins * guess
    sums = torch.zeros(scores.shape[1] * num_bins, dtype=torch.float64, device=scores.device)
    return float(sums.index_add_(0, cell, confidence - (guess == target).double()).abs().sum() / len(target))
