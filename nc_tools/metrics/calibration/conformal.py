"""Prediction sets with a guaranteed coverage, and what they guarantee for rare classes.

A conformal set holds every class whose score is at most a threshold that was fitted on samples with labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores

ConformalMethod = Literal["thr", "aps", "raps", "class_conditional", "clustered", "prevalence_adjusted"]
"""How sets are built: three scores with one threshold, and three ways to treat rare classes fairly."""

CONFORMAL_METHODS: tuple[ConformalMethod, ...] = get_args(ConformalMethod)
"""The names of all methods."""

# Regularization of RAPS, as in its paper: the penalty of each rank beyond the free ranks.
_PENALTY, _FREE_RANKS = 0.01, 5
# Quantiles of a class's scores by which classes are clustered.
_QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.9)
_SAMPLES_PER_CLUSTER = 50


def fit_conformal(
    logits: Tensor,
    labels: Tensor,
    method: ConformalMethod,
    class_counts: Tensor | Sequence[int],
    miscoverage: float = 0.1,
) -> Tensor:
    """Fit the thresholds of conformal sets on a hold-out set, one for each class (K,), float64.

        thr                  1 - p_y (least ambiguous sets); one threshold
        aps                  sum of the probabilities of all classes at least as likely as y
        raps                 aps + .01 max(0, rank of y - 5), which keeps sets small
        class_conditional    thr with a threshold for each class; infinite for a class with too few samples
        clustered            thr with a threshold for each cluster of classes with similar scores
        prevalence_adjusted  -p_y / pi_y, pi the training shares; one threshold

    With n samples the threshold is the ceil((n + 1)(1 - miscoverage))-th smallest score. A new sample of the same
    distribution as the hold-out is then covered with probability at least 1 - miscoverage: over all samples for one
    threshold, within each class for ``class_conditional``. If the test set has other class frequencies than the
    hold-out, as after training on a long tail, only the class-wise statement carries over.

    Sources: Sadinle, Lei and Wasserman (2019), THR; Romano, Sesia and Candes (2020), APS, here without randomization,
    which is conservative; Angelopoulos et al. (2021), RAPS; Vovk (2012), class-conditional; Ding et al. (2023),
    clustered: every second sample of a class is for the clusters and the others for the thresholds, and classes with
    few samples share the threshold over all; Ding, Fermanian and Salmon (2025), prevalence-adjusted.

    Args:
        logits: (N, K) of the hold-out set, N >= 1.
        labels: (N,).
        method: How sets are built.
        class_counts: Training samples of each class (K,), for ``prevalence_adjusted``.
        miscoverage: Share of samples that may be missed, between 0 and 1.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If the method is unknown, the share is not between 0 and 1, or as ``calibration``.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> [round(float(t), 3) for t in fit_conformal(logits, torch.tensor([0, 0, 1]), "thr", [2, 1], 0.5)]
        [0.269, 0.269]
    """
    if not 0 < miscoverage < 1:
        raise ValueError(f"miscoverage is the share of samples that may be missed, between 0 and 1, got {miscoverage}")
    values, target = checked_scores(logits, labels)
    scores = conformal_scores(values, method, class_counts)
    own = scores[torch.arange(len(target), device=scores.device), target]
    num_classes = scores.shape[1]
    if method == "class_conditional":
        return torch.stack([_threshold(own[target == k], miscoverage) for k in range(num_classes)])
    if method == "clustered":
        return _clustered(own, target, num_classes, miscoverage)
    return _threshold(own, miscoverage).expand(num_classes).clone()


def conformal_scores(logits: Tensor, method: ConformalMethod, class_counts: Tensor | Sequence[int]) -> Tensor:
    """Return the score of every class (N, K), float64: a set holds the classes whose score is at most their threshold.

    Args:
        logits: (N, K).
        method: How sets are built.
        class_counts: Training samples of each class (K,).

    Raises:
        ValueError: If the method is unknown.
    """
    if method not in CONFORMAL_METHODS:
        raise ValueError(f"method must be one of {', '.join(CONFORMAL_METHODS)}, got {method!r}")
    p = logits.detach().double().softmax(dim=1)
    if method in ("thr", "class_conditional", "clustered"):
        return 1 - p
    if method == "prevalence_adjusted":
        counts = torch.as_tensor(class_counts).to(p)
        return -p / (counts / counts.sum()).clamp(min=1 / max(float(counts.sum()), 1.0))
    ordered, order = p.sort(dim=1, descending=True)
    scores = ordered.cumsum(dim=1)
    if method == "raps":
        ranks = torch.arange(1, p.shape[1] + 1, dtype=p.dtype, device=p.device)
        scores = scores + _PENALTY * (ranks - _FREE_RANKS).clamp(min=0)
    return torch.empty_like(scores).scatter_(1, order, scores)


def conformal_sets(
    logits: Tensor, method: ConformalMethod, thresholds: Tensor, class_counts: Tensor | Sequence[int]
) -> Tensor:
    """Return which classes the set of each sample holds: a mask (N, K).

    Args:
        logits: (N, K).
        method: The method that the thresholds were fitted for.
        thresholds: (K,), from ``fit_conformal``.
        class_counts: Training samples of each class (K,).

    Raises:
        ValueError: If the thresholds are not one for each class, or the method is unknown.

    Example:
        >>> conformal_sets(torch.tensor([[0.1, 0.0]]), "thr", torch.tensor([0.6, 0.4]), [1, 1]).tolist()
        [[True, False]]
    """
    if thresholds.shape != logits.shape[1:]:
        raise ValueError(f"thresholds must hold one number for each of {logits.shape[1]} classes, got "
                         f"{tuple(thresholds.shape)}")  # fmt: skip
    return conformal_scores(logits, method, class_counts) <= thresholds.to(logits.device)


def _threshold(scores: Tensor, miscoverage: float) -> Tensor:
    rank = math.ceil((len(scores) + 1) * (1 - miscoverage) - 1e-9)
    if rank > len(scores):  # too few samples for any guarantee: the set holds the class
        return torch.full((), torch.inf, dtype=torch.float64, device=scores.device)
    return scores.sort().values[max(rank, 1) - 1]


def _clustered(own: Tensor, target: Tensor, num_classes: int, miscoverage: float) -> Tensor:
    """Return the threshold of each class's cluster (K,); classes with few samples share one over all classes.

    Args:
        own: Score of each sample's own class (N,).
        target: (N,).
        num_classes: K.
        miscoverage: Share of samples that may be missed.
    """
    from scipy.cluster.vq import kmeans2  # here, because the import takes a quarter of a second

    place = torch.zeros_like(target)
    order = target.argsort(stable=True)
    counts = target.bincount(minlength=num_classes)
    starts = counts.cumsum(0) - counts
    place[order] = torch.arange(len(target), device=target.device) - starts[target[order]]
    first, second = place % 2 == 0, place % 2 == 1
    enough = target[first].bincount(minlength=num_classes) >= math.ceil(1 / miscoverage)
    classes = enough.nonzero().flatten().tolist()
    thresholds = _threshold(own[second], miscoverage).expand(num_classes).clone()
    number = min(len(classes), int(second.sum()) // _SAMPLES_PER_CLUSTER)
    if number < 2:
        return thresholds
    levels = torch.tensor(_QUANTILES, dtype=own.dtype, device=own.device)
    embedded = torch.stack([own[first & (target == k)].quantile(levels) for k in classes])
    _, cluster = kmeans2(embedded.cpu().numpy(), number, minit="++", seed=0)
    cluster_of = torch.full((num_classes,), -1, dtype=torch.long)
    cluster_of[classes] = torch.from_numpy(cluster).long()
    of_sample = cluster_of.to(target.device)[target]
    for index in range(number):
        thresholds[cluster_of.to(thresholds.device) == index] = _threshold(
            own[second & (of_sample == index)], miscoverage
        )
    return thresholds
