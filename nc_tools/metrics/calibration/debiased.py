"""A calibration error without the upward bias of binned ones, and how sure one can be of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nc_tools.metrics.checks import checked_bins, checked_scores


@dataclass(frozen=True)
class DebiasedError:
    """A debiased calibration error with a 95 % interval.

    Attributes:
        value: The root of the debiased mean squared gap, 0 where that is negative.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


def debiased_calibration_error(
    logits: Tensor, labels: Tensor, num_bins: int = 15, *, resamples: int = 1000, seed: int = 0
) -> DebiasedError:
    """Return the top-label l2 calibration error without the bias that chance adds to every bin, with an interval.

    sum_b (n_b / N) [(accuracy_b - confidence_b)^2 - s_b^2 / (n_b - 1)], its root where it is positive. Each bin's
    squared gap is in expectation larger than the true one by the variance of its mean, which is taken off: a perfectly
    calibrated model gets 0 on average, where the ECE grows as sqrt(bins / N). Bins hold equally many samples.

    The interval is the basic bootstrap's at 95 %, on the squared scale and cut at 0, with bins kept: resampled values,
    debiased by the same rule, scatter around the *biased* value of the sample as ours does around the truth. It tells
    the sampling of the test set only, not that of training: the spread over seeds comes on top.

    Source: Kumar, Liang and Ma (2019), "Verified uncertainty calibration", equation 7, where s_b^2 is accuracy (1 -
    accuracy): the variance of labels at a fixed confidence. Here it is the variance of label minus confidence, since
    confidences vary within a bin too.

    Args:
        logits: (N, K), N >= 2.
        labels: (N,).
        num_bins: B; at most N / 2 are used, so that every bin has a variance.
        resamples: Bootstrap samples.
        seed: Of the resampling.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If there is one sample only, a count is below 1, or as ``calibration``.

    Example:
        >>> debiased_calibration_error(torch.zeros(100, 2), torch.arange(100) // 2 % 2).value
        0.0
    """
    scores, target = checked_scores(logits, labels)
    if len(target) < 2:
        raise ValueError(f"a debiased error needs at least 2 samples for a variance, got {len(target)}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    bins = min(checked_bins(num_bins), len(target) // 2)
    confidence, guess = scores.double().softmax(dim=1).max(dim=1)
    order = confidence.argsort(stable=True)
    gap = ((guess == target).double() - confidence)[order].cpu()
    index = torch.arange(len(gap)) * bins // len(gap)
    everyone = torch.ones(1, len(gap), dtype=torch.float64)
    found = _debiased(everyone, gap, index, bins)[0]
    biased = (everyone * gap) @ nn.functional.one_hot(index, bins).double()
    center = (biased.square() / torch.bincount(index)).sum() / len(gap)
    generator = torch.Generator().manual_seed(seed)
    chunks = [_debiased(w, gap, index, bins) for w in _weights(len(gap), resamples, generator)]
    low, high = torch.cat(chunks).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    ends = torch.stack([found, found + center - high, found + center - low]).clamp(min=0).sqrt().tolist()
    return DebiasedError(*ends)


def _weights(count: int, resamples: int, generator: torch.Generator) -> list[Tensor]:
    """How often each sample is drawn (resamples, N), in pieces of bounded size."""
    step = max(1, 4_000_000 // count)
    pieces = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = torch.randint(count, (rows, count), generator=generator)
        pieces.append(
            torch.zeros(rows, count, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
        )
    return pieces


def _debiased(weights: Tensor, gap: Tensor, index: Tensor, bins: int) -> Tensor:
    """Debiased mean squared gap for each row of weights (R, N): (R,)."""
    of_bin = nn.functional.one_hot(index, bins).double()
    size, total, square = weights @ of_bin, (weights * gap) @ of_bin, (weights * gap.square()) @ of_bin
    mean = total / size.clamp(min=1)
    variance = (square / size.clamp(min=1) - mean.square()).clamp(min=0)  # over n; over n - 1 it is that of the mean
    # A bin of one draw shows no variance: its square is left out, the least that can be said.
    squared = torch.where(size > 1, mean.square() - variance / (size - 1).clamp(min=1), torch.zeros_like(mean))
    return (size * squared).sum(1) / weights.sum(1)
