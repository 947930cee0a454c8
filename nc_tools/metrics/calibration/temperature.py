"""Temperature scaling: one number, fitted on a hold-out set, that calibrates a classifier."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores

# At this many times the largest gap between two logits, the distribution is uniform.
_LARGEST = 1e3
# At this fraction of the gap, all probability is on the largest logit.
_SMALLEST = 1e-6


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T > 0 that minimizes the NLL of softmax(logits / T) on a hold-out set.

    Temperature scaling has one parameter, does not change the accuracy, and removes most of the miscalibration. Fit it
    on samples that are used neither for training nor for testing. The NLL is convex in 1/T, so its minimum is at the
    root of

        d NLL / d(1/T) = mean_i [sum_k p_ik z_ik - z_iy],

    which Brent's method finds in log T in float64, to about ten digits. Scaling the logits scales T.

    Source: Guo, Pleiss, Sun and Weinberger (2017), section 4.2, where a few gradient steps on T stop near the minimum.
    This function differs if there is no minimum: if every hold-out sample is classified correctly, the NLL keeps
    falling as T falls to 0, where the first test error would cost an unbounded loss. N correct predictions of N support
    a probability of at most (N + 1)/(N + 2) (Laplace's rule of succession), so

        T is the minimizer among temperatures at which the mean confidence is at most (N + 1)/(N + 2),

    and T stays between 1e-6 and 1e3 times the largest gap between two logits of a sample (the upper end is reached if
    the scores are not better than chance). If all logits of every sample are equal, T is 1.

    Args:
        logits: (N, K) of the hold-out set, N >= 1.
        labels: (N,).

    Returns:
        T, finite and positive.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If shapes do not fit, there is no sample, a label is out of range or a logit is not finite.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]]).repeat(4, 1)
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 4)  # softmax gives 3/4
        3.641
    """
    from scipy.optimize import brentq  # here, because the import takes a third of a second

    scores, target = checked_scores(logits, labels)
    z = scores.double()
    z = z - z.amax(dim=1, keepdim=True)
    spread = -float(z.min())
    if spread == 0:
        return 1.0
    own = z.gather(1, target[:, None]).mean()
    z = z / spread
    own = own / spread

    def slope(log_t: float) -> float:
        return float((torch.softmax(z * math.exp(-log_t), dim=1) * z).sum(dim=1).mean() - own)

    limit = 1 - 1 / (len(z) + 2)

    def excess(log_t: float) -> float:
        return float(torch.softmax(z * math.exp(-log_t), dim=1).amax(dim=1).mean()) - limit

    low, high = math.log(_SMALLEST), math.log(_LARGEST)
    if slope(high) >= 0:
        best = high
    elif slope(low) <= 0:
        best = low
    else:
        best = float(brentq(slope, low, high, xtol=1e-11, rtol=1e-14))
    if excess(best) > 0:
        best = float(brentq(excess, best, high, xtol=1e-11, rtol=1e-14)) if excess(high) < 0 else high
    return math.exp(best) * spread
