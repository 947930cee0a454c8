"""Weight imprinting: class vectors from features, one mean or several k-means proxies per class."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.bad_rows import count_bad_rows
from nc_tools._support.class_sums import class_sums
from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.heads.linear import CosineHead
from nc_tools.heads.normalize import normalize
from nc_tools.heads.proxy import ProxyHead
from nc_tools.heads.scale import LEARNED, LearnedScale

_FEW_CLASSES = 64
"""Up to this number of classes, one matrix product of the samples with the centers of all classes is faster than an
elementwise product of each sample with the centers of its own class."""
_ROWS = 8192  # samples in one matrix product, which bounds the memory of its result
_STEPS = 100  # the largest number of Lloyd iterations; on the features of a network about twenty are enough


def imprint(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    num_proxies: int = 1,
    *,
    scale: float | LearnedScale | None = LEARNED,
    generator: torch.Generator | None = None,
) -> CosineHead | ProxyHead:
    """Build a cosine head from features without training: class vectors are the means of unit features.

    Use it for a few-shot probe, as a start for fine-tuning, or for the class vectors of new classes. One proxy is
    weight imprinting (Qi et al. 2018, section 3.2): w_k = norm(mean {h / ||h|| : y = k}). Several proxies are the
    centers of a k-means in each class, which helps if classes have not collapsed to one cluster (Westerhoff et al.
    2025, with Euclidean k-means on unit features). Here it is spherical k-means (Dhillon and Modha 2001): a sample
    belongs to the center with the largest cosine, and centers are means scaled to unit length. So the clusters use the
    same similarity as the head's scores. It starts with k-means++ and clusters all classes at once.

    Args:
        features: (N, D); they need not have unit length.
        labels: (N,), integers in [0, K).
        num_classes: K, at least 2.
        num_proxies: m, at least 1. A class with fewer samples than proxies has some proxies more than once.
        scale: s of the head, as for :class:`~nc_tools.heads.CosineHead`.
        generator: Draws the first centers for m > 1; the global one if None.

    Returns:
        A ``CosineHead`` for m = 1, else a ``ProxyHead``; on the features' device and of their dtype, at least float32.

    Raises:
        TypeError: If features are not floating-point or labels not integers.
        ValueError: If shapes do not fit, a label is out of range, a feature is not finite, a class has no sample, K < 2
            or m < 1.

    Example:
        >>> features, labels = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 8.0]]), torch.tensor([0, 1, 1])
        >>> imprint(features, labels, num_classes=2).weight.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if num_proxies < 1:
        raise ValueError(f"imprint needs at least 1 proxy per class, got num_proxies={num_proxies}")
    check_features_and_labels(features, labels)
    _check_values(features, labels, num_classes)
    directions = normalize(at_least_float32(features.detach()))
    labels = labels.long().to(directions.device)
    with measuring_precision(directions.device):
        proxies = spherical_kmeans(directions, labels, num_classes, num_proxies, generator)
    unused = torch.Generator()  # for the initial weights, which are overwritten
    width = features.shape[1]
    head: CosineHead | ProxyHead
    if num_proxies == 1:
        head = CosineHead(width, num_classes, scale=scale, generator=unused).to(proxies)
        head.direction.data.copy_(proxies[:, 0])
    else:
        head = ProxyHead(width, num_classes, num_proxies=num_proxies, scale=scale, generator=unused).to(proxies)
        head.proxies.data.copy_(proxies)
    return head


def _check_values(features: Tensor, labels: Tensor, num_classes: int) -> None:
    outside = int(((labels < 0) | (labels >= num_classes)).sum())
    if outside:
        raise ValueError(
            f"labels must lie in [0, {num_classes}), got other labels in {outside} samples: correct them, or pass a "
            f"larger num_classes"
        )
    not_finite = count_bad_rows(features)
    if not_finite:
        raise ValueError(f"features must be finite, got NaN or inf in {not_finite} samples: remove these samples")
    empty = (labels.long().bincount(minlength=num_classes) == 0).nonzero().flatten().tolist()
    if empty:
        listed = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise ValueError(
            f"imprint needs a sample of every class, got none for {len(empty)} of {num_classes} classes ({listed}): "
            f"add samples, or number the other classes from 0 and pass a smaller num_classes"
        )


def spherical_kmeans(
    directions: Tensor, labels: Tensor, num_classes: int, num_proxies: int, generator: torch.Generator | None = None
) -> Tensor:
    """Cluster the unit features of each class around m unit centers, for all classes at once.

    Lloyd's algorithm with the cosine: assign each sample to the nearest center of its class, move each center to the
    unit mean of its samples, and repeat until no sample changes its center, at most 100 times. Neither step lowers the
    mean cosine. A center without samples does not move. O(N m D) per iteration and O(N D) memory, for any number of
    classes.

    Args:
        directions: (N, D), unit rows, float32 or float64.
        labels: (N,), int64; every class has a sample.
        num_classes: K.
        num_proxies: m.
        generator: Draws the first centers; the global one if None.

    Returns:
        (K, m, D), unit rows.

    Example:
        >>> spherical_kmeans(torch.eye(2), torch.tensor([0, 0]), 1, 2, torch.Generator().manual_seed(0)).sum(1)
        tensor([[1., 1.]])
    """
    if num_proxies == 1:
        return normalize(class_sums(directions, labels, num_classes)[1]).to(directions.dtype).unsqueeze(1)
    centers = _first_centers(directions, labels, num_classes, num_proxies, generator)
    nearest = torch.full_like(labels, -1)
    for _ in range(_STEPS):
        previous, nearest = nearest, _nearest(directions, labels, centers)
        if torch.equal(previous, nearest):
            break
        group = labels * num_proxies + nearest
        counts, sums = class_sums(directions, group, num_classes * num_proxies)
        means = normalize(sums).to(directions.dtype).view_as(centers)
        centers = torch.where(counts.view(num_classes, num_proxies, 1) > 0, means, centers)
    return centers


def _nearest(directions: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """Return, for each sample, the index of the nearest center of its class (N,)."""
    num_classes, num_proxies, _ = centers.shape
    if num_classes <= _FEW_CLASSES:
        flat, own = centers.flatten(0, 1).T, labels.view(-1, 1, 1).expand(-1, 1, num_proxies)
        return torch.cat(
            [
                (rows @ flat).view(-1, num_classes, num_proxies).gather(1, of_rows).argmax(2).flatten()
                for rows, of_rows in zip(torch.split(directions, _ROWS), torch.split(own, _ROWS), strict=True)
            ]
        )
    # One center at a time: all at once would take N m D numbers.
    cosines = [(directions * centers[:, j].index_select(0, labels)).sum(1) for j in range(centers.shape[1])]
    return torch.stack(cosines).argmax(0)


def _first_centers(
    directions: Tensor, labels: Tensor, num_classes: int, num_proxies: int, generator: torch.Generator | None
) -> Tensor:
    """Draw m samples of each class as first centers (K, m, D), with k-means++.

    The probability of a sample is proportional to its squared distance from the nearest center drawn so far. All
    classes draw at once: each sample gets an exponential arrival time whose rate is its squared distance. The first
    arrival of a class is drawn, which has a probability proportional to its rate. (Arthur and Vassilvitskii 2007 draw
    one sample of one class at a time.)
    """
    starts = labels.bincount(minlength=num_classes).cumsum(0).roll(1)
    starts[0] = 0
    distance = torch.ones_like(directions[:, 0])
    chosen: list[Tensor] = []
    for _ in range(num_proxies):
        times = torch.empty(len(labels), device=generator.device if generator else "cpu")
        arrival = times.exponential_(generator=generator).to(distance) / distance
        order = arrival.argsort(stable=True)
        first = order[labels[order].argsort(stable=True)][starts]
        chosen.append(directions[first])
        to_last = 1 - (directions * chosen[-1].index_select(0, labels)).sum(1)  # half of the squared distance
        distance = (torch.minimum(distance, to_last) if len(chosen) > 1 else to_last).clamp(min=0)
    return torch.stack(chosen, 1)
