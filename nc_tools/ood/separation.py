"""How well a score separates in-distribution samples from outliers: AUROC, average precision and FPR95."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def separation(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """Return AUROC, both average precisions, and the false positive rate at 95 % true positives.

        auroc     the probability that an inside sample scores higher than an outside one; a tie counts half
        aupr_in   average precision with the inside samples as positives
        aupr_out  average precision with the outside samples as positives and the sign of the score changed
        fpr95     share of outside samples that score at or above the highest threshold that at least 95 % of the
                  inside samples reach

    Samples of equal score share a threshold, so ties are exact. Average precision is the sum of precision times gain
    in recall, as in scikit-learn; some toolkits use trapezoids, which is too optimistic. Average precisions depend on
    the sizes of the two sets; AUROC and FPR95 do not. OpenOOD takes outside as positive, which leaves AUROC and
    changes FPR95.

    Args:
        inside: (N,), higher is more in-distribution; infinite scores are allowed.
        outside: (M,).

    Raises:
        TypeError: If the scores are not floating-point.
        ValueError: If a set is empty or not one-dimensional, or a score is NaN.

    Example:
        >>> separation(torch.tensor([3.0, 2.0, 2.0]), torch.tensor([2.0, 1.0]))["auroc"]  # (1 + 1 + 2 / 2 + 2) / 6
        0.8333333333333334
    """
    a, b = _checked(inside, outside)
    thresholds, place = torch.unique(torch.cat([a, b]), return_inverse=True)
    positives = torch.bincount(place[: len(a)], minlength=len(thresholds)).double()
    negatives = torch.bincount(place[len(a) :], minlength=len(thresholds)).double()
    below = negatives.cumsum(0) - negatives
    auroc = (positives * (below + negatives / 2)).sum() / (len(a) * len(b))
    at_least = positives.flip(0).cumsum(0)  # the highest threshold first
    reached = int((at_least < math.ceil(0.95 * len(a) - 1e-9)).sum())
    fpr95 = negatives.flip(0).cumsum(0)[reached] / len(b)
    values = [
        auroc,
        _average_precision(positives.flip(0), negatives.flip(0)),
        _average_precision(negatives, positives),
        fpr95,
    ]
    return dict(zip(("auroc", "aupr_in", "aupr_out", "fpr95"), torch.stack(values).tolist(), strict=True))


def _average_precision(positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the average precision from the numbers of positives and negatives at each threshold, the highest first."""
    hits = positives.cumsum(0)
    return (positives * hits / (hits + negatives.cumsum(0))).sum() / positives.sum()


def auroc_interval(inside: Tensor, outside: Tensor, confidence: float = 0.95) -> tuple[float, float]:
    """Return a confidence interval for the AUROC by DeLong's variance.

    The interval covers the sampling of the two sets with the model fixed, not the variation between trainings. It is
    computed on the log-odds, so that it stays inside [0, 1].

    Source: DeLong, DeLong and Clarke-Pearson (1988).

    Args:
        inside: (N,), N >= 2.
        outside: (M,), M >= 2.
        confidence: Between 0 and 1.

    Returns:
        Both ends; the AUROC twice if it is 0 or 1, where it has no variance.

    Raises:
        TypeError: If the scores are not floating-point.
        ValueError: If a set has fewer than two samples, a score is NaN, or the confidence is not between 0 and 1.

    Example:
        >>> low, high = auroc_interval(torch.arange(20.0) + 5, torch.arange(20.0))
        >>> low < separation(torch.arange(20.0) + 5, torch.arange(20.0))["auroc"] < high
        True
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    a, b = _checked(inside, outside)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a confidence interval needs at least two scores of each set, got {len(a)} and {len(b)}")
    over, under = _shares_below(a, b), 1 - _shares_below(b, a)
    value = float(over.mean())
    variance = float(over.var() / len(a) + under.var() / len(b))
    if variance == 0 or value in (0.0, 1.0):
        return value, value
    quantile = float(torch.special.ndtri(torch.tensor(0.5 + confidence / 2, dtype=torch.float64)))
    log_odds = math.log(value / (1 - value))
    half = quantile * math.sqrt(variance) / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-x)) for x in (log_odds - half, log_odds + half))
    return low, high


def _shares_below(scores: Tensor, reference: Tensor) -> Tensor:
    """Return, for each score, the share of ``reference`` below it; ties count half."""
    ordered = reference.sort().values
    left = torch.searchsorted(ordered, scores, right=False)
    right = torch.searchsorted(ordered, scores, right=True)
    return (left + right).double() / (2 * len(reference))


def _checked(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    for name, part in (("inside", inside), ("outside", outside)):
        if not part.is_floating_point():
            raise TypeError(f"scores must be floating-point, got {part.dtype} for the {name} set")
        if part.ndim != 1 or len(part) == 0:
            raise ValueError(
                f"the {name} set must have scores of shape (N,) with N >= 1, got the shape {tuple(part.shape)}"
            )
        if bad := int(part.isnan().sum()):
            raise ValueError(
                f"scores must not be NaN, but {bad} of {len(part)} of the {name} set are: remove these samples, or "
                "check the model that produced them"
            )
    # On the CPU: sorting a list of scores is cheap, and not every device has float64 or a fixed order of sums.
    return inside.detach().cpu().double(), outside.detach().cpu().double()
