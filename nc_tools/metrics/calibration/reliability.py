"""NLL, Brier score, expected calibration error and the bins of reliability diagrams.

All functions take logits and apply the softmax themselves. A function that guesses from the value range whether its
input is logits or probabilities is wrong for cosine heads, whose logits can all lie between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_bins, checked_scores


@dataclass(frozen=True)
class ReliabilityBins:
    """The bins of a reliability diagram; an empty bin has count 0, and None for confidence and accuracy.

    Attributes:
        edges: The num_bins + 1 edges of the bins; a bin includes its upper edge.
        count: Samples of each bin.
        confidence: Their mean top-label probability.
        accuracy: Share of them that were classified correctly.
    """

    edges: list[float]
    count: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]


def calibration(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return NLL, Brier score and two calibration errors of softmax(logits).

        nll       -mean_i log p_i,y                     (nats; proper, unbounded)
        brier     mean_i sum_k (p_ik - [k = y_i])^2     (sum over classes, so 0 to 2; proper)
        ece       15 bins of equal width, see ``expected_calibration_error``
        ece_mass  15 bins of equal mass, see ``equal_mass_calibration_error``

    Args:
        logits: (N, K), N >= 1.
        labels: (N,).

    Returns:
        The quantities by name.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If shapes do not fit, there is no sample, a label is out of range or a logit is not finite.

    Example:
        >>> values = calibration(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
        >>> round(values["nll"], 4), values["brier"], values["ece"]
        (0.6931, 0.5, 0.0)
    """
    scores, target = checked_scores(logits, labels)
    log_p = scores.log_softmax(dim=1)
    p = log_p.exp()
    confidence, right = _top(p, target)
    error = p.scatter_add_(1, target[:, None], torch.full_like(p[:, :1], -1.0))
    values = {
        "nll": -log_p.gather(1, target[:, None]).mean(dtype=torch.float64),
        "brier": error.square().sum(dtype=torch.float64) / len(error),
        "ece": _gap(confidence, right, _equal_width(confidence, 15), 15),
        "ece_mass": _equal_mass_gap(confidence, right, 15),
    }
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def expected_calibration_error(logits: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Return the top-label ECE over bins of equal width: sum_b (n_b / N) * |accuracy_b - confidence_b|.

    Bin b holds confidences in ((b - 1)/B, b/B] (Guo, Pleiss, Sun and Weinberger, 2017). It is biased upwards on small
    sets: compare only at equal N. For confident models nearly all samples share the last bin;
    :func:`equal_mass_calibration_error` splits them.

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
        >>> round(expected_calibration_error(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([1, 1])), 6)
        0.5
    """
    confidence, right = _checked_top(logits, labels, num_bins)
    return float(_gap(confidence, right, _equal_width(confidence, num_bins), num_bins))


def equal_mass_calibration_error(logits: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Return the top-label ECE over bins that hold equally many samples, by rank of confidence.

    The r-th of N samples (from 0) goes to bin floor(r B / N) (Nguyen and O'Connor, 2015). Samples of equal confidence
    share their mean accuracy, so the value does not depend on the order of the samples. Without that, thousands of
    saturated predictions at exactly 1 would be split into bins arbitrarily.

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
        >>> round(equal_mass_calibration_error(torch.zeros(30, 2), torch.arange(30) % 2), 6)
        0.0
    """
    return float(_equal_mass_gap(*_checked_top(logits, labels, num_bins), num_bins))


def reliability_bins(logits: Tensor, labels: Tensor, num_bins: int = 15) -> ReliabilityBins:
    """Return the equal-width bins of a reliability diagram, as ``expected_calibration_error`` uses them.

    Args:
        logits: (N, K), N >= 1.
        labels: (N,).
        num_bins: B, the number of bins.

    Returns:
        Lists of B entries (and B + 1 edges).

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If ``num_bins`` is below 1, or as ``calibration``.

    Example:
        >>> reliability_bins(torch.zeros(2, 2), torch.tensor([0, 1]), num_bins=2).count
        [2, 0]
    """
    confidence, right = _checked_top(logits, labels, num_bins)
    rows = _bin_sums(confidence, right, _equal_width(confidence, num_bins), num_bins).tolist()
    return ReliabilityBins(
        edges=[step / num_bins for step in range(num_bins + 1)],
        count=[int(n) for n in rows[0]],
        confidence=[total / n if n else None for n, total in zip(rows[0], rows[1], strict=True)],
        accuracy=[total / n if n else None for n, total in zip(rows[0], rows[2], strict=True)],
    )


def _checked_top(logits: Tensor, labels: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
    checked_bins(num_bins)
    scores, target = checked_scores(logits, labels)
    return _top(scores.log_softmax(dim=1).exp(), target)


def _top(p: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the top-label probability, at most 1, and whether that label is correct; both (N,), float64."""
    top, guess = p.max(dim=1)
    return top.double().clamp(max=1), (guess == target).double()


def _equal_width(confidence: Tensor, num_bins: int) -> Tensor:
    edges = torch.arange(1, num_bins, dtype=torch.float64, device=confidence.device) / num_bins
    return torch.bucketize(confidence, edges)


def _bin_sums(confidence: Tensor, right: Tensor, index: Tensor, num_bins: int) -> Tensor:
    """Return count, summed confidence and summed accuracy of each bin: (3, B)."""
    sums = torch.zeros(num_bins, 3, dtype=torch.float64, device=confidence.device)
    return sums.index_add_(0, index, torch.stack([torch.ones_like(right), confidence, right], dim=1)).T


def _gap(confidence: Tensor, right: Tensor, index: Tensor, num_bins: int) -> Tensor:
    sums = _bin_sums(confidence, right, index, num_bins)
    return (sums[1] - sums[2]).abs().sum() / len(confidence)


def _equal_mass_gap(confidence: Tensor, right: Tensor, num_bins: int) -> Tensor:
    ordered, order = confidence.sort()
    tie = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    hits = torch.zeros_like(right).index_add_(0, tie, right[order])
    sizes = torch.zeros_like(right).index_add_(0, tie, torch.ones_like(right))
    shared = hits / sizes.clamp(min=1)
    rank = torch.arange(len(ordered), device=ordered.device)
    return _gap(ordered, shared[tie], rank * num_bins // len(ordered), num_bins)
