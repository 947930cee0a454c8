"""Which labels look wrong: every sample ranked by its loss and by where its features lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.metrics.checks import check_finite, checked_scores

_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Suspects:
    """How suspect each label is, in the order of the samples. Larger scores and smaller ranks are more suspect.

    Attributes:
        loss: -log p of the given label (N,).
        distance: Distance to the mean of the given class less that to the nearest other mean (N,).
        loss_rank: Rank by loss (N,), from 1.
        distance_rank: Rank by distance (N,), from 1.
        order: Samples from the most to the least suspect by the sum of both ranks (N,).
        suggested: The class that the model finds likeliest, other than the given one (N,).
    """

    loss: Tensor
    distance: Tensor
    loss_rank: Tensor
    distance_rank: Tensor
    order: Tensor
    suggested: Tensor


def rank_suspects(features: Tensor, logits: Tensor, labels: Tensor) -> Suspects:
    """Rank samples by how little their labels fit what a model made of them.

    Two scores, which fail differently: the loss of the given label, small where the model has memorized it, and

        ||h - mu_y|| n_y / (n_y - 1)  -  min_{k != y} ||h - mu_k||

    with mu_k the class means under the given labels. The factor takes the sample out of its own mean; the only sample
    of a class has nothing to be compared with and counts as unsuspicious. Ties in rank are broken by position. No true
    label is looked at.

    Sources: small loss as a sign of a clean label, Arpit et al. 2017 and Han et al. 2018; the place of a feature among
    class means, Lee et al. 2019 (Kim et al. 2021 take principal directions instead). Summing ranks is ours.

    Args:
        features: (N, D), without augmentation.
        logits: (N, K).
        labels: (N,), the given ones.

    Returns:
        Scores, ranks and order, on the CPU.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit or a label is out of range.

    Example:
        >>> h = torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.0, 1.0], [0.0, 0.9], [1.0, 0.1]])
        >>> told = rank_suspects(h, 3 * h, torch.tensor([0, 0, 1, 1, 1]))
        >>> int(told.order[0]), int(told.suggested[told.order[0]])
        (4, 0)
    """
    check_features_and_labels(features, labels)
    check_finite("features", features)
    scores, given = checked_scores(logits, labels)
    own = given[:, None]
    with measuring_precision(features.device):
        x = at_least_float32(features.detach())
        counts, sums = class_sums(x, given, scores.shape[1])
        means = sums / counts[:, None]
        # From a common origin, so that the products inside cost no digits; in blocks, for the sake of memory.
        origin = means[counts > 0].mean(0)
        blocks = [torch.cdist(block.double() - origin, means - origin) for block in torch.split(x, _BLOCK)]
        apart = torch.cat(blocks).nan_to_num(nan=torch.inf)
        left = (counts / (counts - 1).clamp(min=1)).double()
        others = apart.scatter(1, own, torch.inf).amin(1)
        distance = apart.gather(1, own).squeeze(1) * left[given] - others
        loss = -scores.log_softmax(1).gather(1, own).squeeze(1)
        suggested = scores.scatter(1, own, -torch.inf).argmax(1)
    loss_rank, distance_rank = _ranks(loss), _ranks(distance)
    order = (loss_rank + distance_rank).argsort(stable=True)
    return Suspects(loss.cpu(), distance.cpu(), loss_rank, distance_rank, order, suggested.cpu())


def precision_at(order: Tensor, wrong: Tensor, k: int | None = None) -> float | None:
    """Return the share of wrong labels among the first k of a ranking.

    Args:
        order: (N,), samples from the most suspect on.
        wrong: (N,), bool: which labels are known to be wrong.
        k: How many to look at; None: as many as are wrong, where a perfect ranking has 1 and a random one the noise
            rate.

    Returns:
        The share, or None if k is 0.

    Raises:
        ValueError: If k is negative.

    Example:
        >>> precision_at(torch.tensor([2, 0, 1]), torch.tensor([False, True, True]))
        0.5
    """
    if k is not None and k < 0:
        raise ValueError(f"k is how many samples to look at and must not be negative, got {k}")
    looked = int(wrong.sum()) if k is None else min(k, len(order))
    return float(wrong.cpu()[order[:looked]].double().mean()) if looked else None


def _ranks(score: Tensor) -> Tensor:
    """Rank from 1 for the largest, on the CPU."""
    order = score.cpu().argsort(descending=True, stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(1, len(order) + 1))
