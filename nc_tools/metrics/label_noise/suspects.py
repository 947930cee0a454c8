"""Which labels look wrong: samples ranked by their loss and by their distance to the class means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.metrics.checks import check_finite, checked_features, checked_scores

_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Suspects:
    """How suspect each label is, in the order of the samples. A larger score and a smaller rank mean more suspect.

    Attributes:
        loss: -log p of the given label (N,), float64.
        distance: Distance to the mean of the given class minus the distance to the nearest other mean (N,), float64.
        loss_rank: Rank by loss (N,), from 1.
        distance_rank: Rank by distance (N,), from 1.
        order: Samples from the most to the least suspect by the sum of both ranks (N,).
        suggested: The most likely class other than the given one, according to the model (N,).
    """

    loss: Tensor
    distance: Tensor
    loss_rank: Tensor
    distance_rank: Tensor
    order: Tensor
    suggested: Tensor


def rank_suspects(
    features: Tensor, logits: Tensor, labels: Tensor, *, reference: tuple[Tensor, Tensor] | None = None
) -> Suspects:
    """Rank samples by how badly their labels fit the features and logits of a model.

    Two scores with different weaknesses: the loss of the given label, which is small if the model has memorized it, and

        ||h - mu_y|| n_y / (n_y - 1)  -  min_{k != y} ||h - mu_k||

    with mu_k the class means under the given labels. The factor n_y / (n_y - 1) removes the sample from the mean of its
    own class; it is left out if ``reference`` is given. The only sample of a class cannot be compared and gets the
    distance 0 to its mean. Ties in rank are broken by position. True labels are not used.

    Sources: small loss as a sign of a clean label, Arpit et al. 2017 and Han et al. 2018; distances to class means, Lee
    et al. 2019 (Kim et al. 2021 use principal directions instead). Summing the two ranks is the choice of this package.

    Args:
        features: (N, D), without augmentation.
        logits: (N, K).
        labels: (N,), the given labels.
        reference: Features (M, D) and labels (M,) of other samples, whose class means are used: for a test set, those
            of the training set. None: the means of the samples themselves.

    Returns:
        Scores, ranks and order, on the CPU.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, a label is out of range, or a feature or logit is not finite.

    Example:
        >>> h = torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.0, 1.0], [0.0, 0.9], [1.0, 0.1]])
        >>> suspects = rank_suspects(h, 3 * h, torch.tensor([0, 0, 1, 1, 1]))
        >>> int(suspects.order[0]), int(suspects.suggested[suspects.order[0]])
        (4, 0)
    """
    check_features_and_labels(features, labels)
    check_finite("features", features)
    scores, y = checked_scores(logits, labels)
    column = y[:, None]
    with measuring_precision(features.device):
        x = at_least_float32(features.detach())
        own_means = reference is None
        others, other_labels = (x, y) if reference is None else _checked_reference(reference, x, scores.shape[1])
        counts, sums = class_sums(others, other_labels, scores.shape[1])
        means = sums / counts[:, None]
        # The origin moves to the mean of the class means, so that products do not lose digits; blocks save memory.
        origin = means[counts > 0].mean(0)
        blocks = [torch.cdist(block.double() - origin, means - origin) for block in torch.split(x, _BLOCK)]
        distances = torch.cat(blocks).nan_to_num(nan=torch.inf)
        nearest_other = distances.scatter(1, column, torch.inf).amin(1)
        to_own = distances.gather(1, column).squeeze(1)
        if own_means:
            to_own = to_own * (counts / (counts - 1).clamp(min=1)).double()[y]
        distance = to_own - nearest_other
        scores = scores.double()
        loss = -scores.log_softmax(1).gather(1, column).squeeze(1)
        suggested = scores.scatter(1, column, -torch.inf).argmax(1)
    loss_rank, distance_rank = _ranks(loss), _ranks(distance)
    order = (loss_rank + distance_rank).argsort(stable=True)
    return Suspects(loss.cpu(), distance.cpu(), loss_rank, distance_rank, order, suggested.cpu())


def _checked_reference(reference: tuple[Tensor, Tensor], features: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    others, labels, _ = checked_features(*reference, classes)
    if others.shape[1] != features.shape[1]:
        raise ValueError(
            f"the reference must have the width of the features, {features.shape[1]}, got {others.shape[1]}: compute "
            "both with the same model"
        )
    return others.to(features.device), labels.to(features.device)


def precision_at(order: Tensor, wrong: Tensor, k: int | None = None) -> float | None:
    """Return the share of wrong labels among the k most suspect samples of a ranking.

    Args:
        order: Indices of the samples (N,), the most suspect first.
        wrong: Which labels are wrong (N,), bool.
        k: How many samples to look at; None for as many as are wrong: then a perfect ranking has precision 1, a random
            one the noise rate.

    Returns:
        The share, or None if k is 0.

    Raises:
        ValueError: If k is negative.

    Example:
        >>> precision_at(torch.tensor([2, 0, 1]), torch.tensor([False, True, True]))
        0.5
    """
    if k is not None and k < 0:
        raise ValueError(f"k is a number of samples and must not be negative, got {k}")
    k = int(wrong.sum()) if k is None else min(k, len(order))
    return float(wrong.cpu()[order[:k]].double().mean()) if k else None


def _ranks(score: Tensor) -> Tensor:
    """Return the rank of each score, 1 for the largest, on the CPU."""
    return score.cpu().argsort(descending=True, stable=True).argsort() + 1
