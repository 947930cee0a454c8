"""Temperature scaling: the one number that makes a trained classifier's confidence fit a hold-out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores

# A temperature this many times the widest gap between two logits leaves nothing but the uniform distribution.
_WIDEST = 1e3
# And one this small a part of it leaves nothing but the largest logit.
_NARROWEST = 1e-6


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the T > 0 that minimizes the NLL of softmax(logits / T) on a hold-out, by a bracketed root.

    One parameter, accuracy unchanged, and most of the miscalibration gone; fit it on images that neither
    trained nor test the model. The NLL is convex in 1/T, so the root of

        d NLL / d(1/T) = mean_i [sum_k p_ik z_ik - z_iy]

    in log T, found by Brent's method in float64, is the minimum to about ten digits; scaling the logits
    scales T.

    Source: Guo, Pleiss, Sun and Weinberger (2017), section 4.2, where a few gradient steps on T stop near the
    minimum. It differs in what happens when there is none. If every hold-out sample is classified rightly the NLL
    falls for ever as T falls to 0, and the first test error would then cost an unbounded loss. N right answers of
    N support a probability of (N + 1)/(N + 2) and no more (Laplace's rule of succession), so

        T is the minimizer among temperatures at which the mean confidence is at most (N + 1)/(N + 2),

    and further stays within 1e-6 and 1e3 times the widest gap of a sample's logits (the upper end is reached
    when the scores are no better than chance). If no sample prefers any class T is 1.

    Args:
        logits: (N, K) of a hold-out, N >= 1.
        labels: (N,).

    Returns:
        T, finite and positive.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If shapes do not fit, there is no sample, a label is out of range or a logit is not
            finite.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]]).repeat(4, 1)
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 4)  # softmax gives 3/4
        3.641
    """
    from scipy.optimize import brentq  # late: a third of a second that other measures need not pay

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

    low, high = math.log(_NARROWEST), math.log(_WIDEST)
    if slope(high) >= 0:
        best = high
    elif slope(low) <= 0:
        best = low
    else:
        best = float(brentq(slope, low, high, xtol=1e-11, rtol=1e-14))
    if excess(best) > 0:
        best = float(brentq(excess, best, high, xtol=1e-11, rtol=1e-14)) if excess(high) < 0 else high
    return math.exp(best) * spread
