"""A calibration error without the upward bias of binned errors, with a confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nc_tools.metrics.checks import checked_bins, checked_scores


@dataclass(frozen=True)
class DebiasedError:
    """A debiased calibration error with its 95 % confidence interval.

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
    """Return the debiased top-label l2 calibration error, with a 95 % confidence interval.

    The root of sum_b (n_b / N) [(accuracy_b - confidence_b)^2 - s_b^2 / (n_b - 1)] where that is positive, else 0. The
    squared gap of a bin is, in expectation, larger than the true one by the variance of its mean. Subtracting that
    variance gives a perfectly calibrated model 0 on average, while the ECE grows as sqrt(bins / N). Bins hold equally
    many samples.

    The interval is that of the basic bootstrap, on the squared scale and cut at 0, with the bins fixed. Resampled
    values, debiased by the same rule, vary about the *biased* value of the sample in the same way as the debiased value
    varies about the truth. The interval covers the sampling of the test set only, not the variation between trainings
    (repeat with seeds).

    Source: Kumar, Liang and Ma (2019), "Verified uncertainty calibration", equation 7, where s_b^2 is accuracy (1 -
    accuracy): the variance of labels at a fixed confidence. Here it is the variance of label minus confidence, since
    confidences vary within a bin too.

    Args:
        logits: (N, K), N >= 2.
        labels: (N,).
        num_bins: B; at most N / 2 are used, so that every bin has a variance.
        resamples: Bootstrap samples.
        seed: Seed of the resampling.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If there is one sample only, a count is below 1, or as ``calibration``.

    Example:
        >>> debiased_calibration_error(torch.zeros(100, 2), torch.arange(100) // 2 % 2).value
        0.0
    """
    scores, target = checked_scores(logits, labels)
    if len(target) < 2:
        raise ValueError(f"the debiased calibration error needs at least 2 samples, got {len(target)}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    bins = min(checked_bins(num_bins), len(target) // 2)
    confidence, guess = scores.double().softmax(dim=1).max(dim=1)
    order = confidence.argsort(stable=True)
    gap = ((guess == target).double() - confidence)[order].cpu()
    index = torch.arange(len(gap)) * bins // len(gap)
    once = torch.ones(1, len(gap), dtype=torch.float64)
    squared = _debiased(once, gap, index, bins)[0]
    biased = (once * gap) @ nn.functional.one_hot(index, bins).double()
    plug_in = (biased.square() / torch.bincount(index)).sum() / len(gap)
    generator = torch.Generator().manual_seed(seed)
    chunks = [_debiased(w, gap, index, bins) for w in _weights(len(gap), resamples, generator)]
    low, high = torch.cat(chunks).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    ends = torch.stack([squared, squared + plug_in - high, squared + plug_in - low]).clamp(min=0).sqrt().tolist()
    return DebiasedError(*ends)


def _weights(count: int, resamples: int, generator: torch.Generator) -> list[Tensor]:
    """Return how often each resample draws each sample: (resamples, N), in parts with a limited number of rows."""
    step = max(1, 4_000_000 // count)
    pieces = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        indices = torch.randint(count, (rows, count), generator=generator)
        pieces.append(
            torch.zeros(rows, count, dtype=torch.float64).scatter_add_(1, indices, torch.ones_like(indices).double())
        )
    return pieces


def _debiased(weights: Tensor, gap: Tensor, index: Tensor, bins: int) -> Tensor:
    """Return the debiased mean squared gap for each row of weights (R, N): (R,).

    Args:
        weights: How often each sample counts (R, N).
        gap: Correctness (0 or 1) minus confidence of each sample (N,).
        index: Bin of each sample (N,).
        bins: Number of bins.
    """
    of_bin = nn.functional.one_hot(index, bins).double()
    size, total, square = weights @ of_bin, (weights * gap) @ of_bin, (weights * gap.square()) @ of_bin
    mean = total / size.clamp(min=1)
    # The variance of the gaps in a bin, with divisor n. Divided by n - 1 below, it estimates that of their mean.
    variance = (square / size.clamp(min=1) - mean.square()).clamp(min=0)
    # The variance of a bin of one sample is unknown: its square is left out.
    squared = torch.where(size > 1, mean.square() - variance / (size - 1).clamp(min=1), torch.zeros_like(mean))
    return (size * squared).sum(1) / weights.sum(1)
