"""Long-tailed subsets and stratified splits of a labeled set, as index tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nc_tools.data.data_config import Profile, Protocol, check_own_counts


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Count the samples of each class.

    Args:
        labels: (N,) class indices.
        num_classes: K.

    Returns:
        (K,) int64.

    Example:
        >>> class_counts(torch.tensor([0, 2, 2]), 3).tolist()
        [1, 0, 2]

    Raises:
        TypeError: If the labels are no class indices.
        ValueError: If one of them is out of range.
    """
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be class indices (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    if outside := int(((labels < 0) | (labels >= num_classes)).sum()):
        raise ValueError(f"labels must lie in [0, {num_classes}), but {outside} of them do not")
    return torch.bincount(labels, minlength=num_classes)


def long_tailed_counts(
    counts: Tensor,
    factor: float,
    profile: Profile = "exponential",
    classes: Sequence[str] | None = None,
    pareto_alpha: float = 6.0,
) -> Tensor:
    """Return how many samples of each class a long-tailed subset keeps.

    Class k keeps floor(n_max share_k) samples, with

        exponential  share_k = factor^(-k / (K - 1))
        step         share_k = 1 for the first K // 2 classes, 1 / factor for the others
        pareto       share_k = r + (1 - r) x_k / x_0, r = 1 / factor, x_k = ((k + 1/2) / (K - 1/2))^(-1 / alpha) - 1

    Source: Cui et al. 2019, section 5.1, and Cao et al. 2019, section 4.1, with their rounding. The Pareto profile is
    that of ImageNet-LT and Places-LT (Liu et al. 2019, section 4.1: alpha = 6), which are drawn at random and published
    as lists: here the quantiles of the same distribution stand in order, fitted to begin at n_max and to end at n_max /
    factor. With 1280 images at most and a factor of 256, as in ImageNet-LT, 349 of 1000 classes have more than 100
    images, where the published list has 385. They start from
    balanced sets; here n_max is the largest size for which no class runs out, so the factor comes out as asked on
    any set. A factor of 1 keeps everything, balanced or not.

    Args:
        counts: (K,) samples there are.
        factor: n_max / n_min, at least 1.
        profile: Shape of the tail.
        classes: Names for the message, K of them.
        pareto_alpha: Exponent of the Pareto profile; smaller ones have fewer and larger head classes.

    Returns:
        (K,) int64.

    Raises:
        ValueError: If the factor is below 1, alpha is not positive or a class would keep no sample.

    Example:
        >>> long_tailed_counts(torch.full((10,), 5000), 100).tolist()
        [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    if not 1 <= factor < math.inf:
        raise ValueError(f"the imbalance factor is n_max / n_min and must be at least 1, got {factor:g}")
    available = [int(count) for count in counts]
    share = _shares(len(available), factor, profile, pareto_alpha)
    largest = min(math.ceil((n + 1) / s) - 1 for n, s in zip(available, share, strict=True))
    while any(int(largest * s) > n for n, s in zip(available, share, strict=True)):
        largest -= 1  # the division above may round up in its last digit
    kept = available if factor == 1 else [int(largest * s) for s in share]
    # A class that had nothing to begin with drags the others down, and is the one to name.
    missing = [k for k, n in enumerate(available) if n < 1] or [k for k, n in enumerate(kept) if n < 1]
    if missing:
        names = ", ".join(classes[k] if classes else str(k) for k in missing[:8])
        raise ValueError(
            f"every class needs at least one training sample, and at imbalance {factor:g} none is left of "
            f"{names}{', ...' if len(missing) > 8 else ''}: lower the imbalance or add images"
        )
    return torch.tensor(kept, dtype=torch.int64)


def _shares(num_classes: int, factor: float, profile: Profile, pareto_alpha: float) -> list[float]:
    ratio = 1 / factor
    if profile == "step":
        return [1.0 if k < num_classes // 2 else ratio for k in range(num_classes)]
    if profile == "exponential":
        return [ratio ** (k / max(1, num_classes - 1)) for k in range(num_classes)]
    if profile == "pareto":
        if not 0 < pareto_alpha < math.inf:
            raise ValueError(f"pareto_alpha must be positive and finite, got {pareto_alpha:g}: 6 is usual")
        last = num_classes - 0.5
        tail = [((k + 0.5) / last) ** (-1 / pareto_alpha) - 1 for k in range(num_classes)]
        falls = [x / tail[0] if tail[0] > 0 else 1.0 for x in tail]
        return [fall + ratio * (1 - fall) for fall in falls]  # 1 and the ratio at the ends, to the last digit
    raise ValueError(f"profile must be exponential, step or pareto, got {profile!r}")


def own_counts(counts: Tensor, wanted: Sequence[int], classes: Sequence[str] | None = None) -> Tensor:
    """Check counts that a person has chosen against the samples that there are.

    Args:
        counts: (K,) samples there are.
        wanted: How many of each class to keep, K of them.
        classes: Names for the message, K of them.

    Returns:
        ``wanted`` as (K,) int64.

    Raises:
        ValueError: If their number is not K, one is not positive, or a class has less.

    Example:
        >>> own_counts(torch.tensor([5, 5]), (5, 1)).tolist()
        [5, 1]
    """
    check_own_counts(wanted)
    if len(wanted) != len(counts):
        raise ValueError(f"class_counts needs one number for each of the {len(counts)} classes, got {len(wanted)}")
    kept = torch.tensor([int(count) for count in wanted], dtype=torch.int64)
    if bool((kept > counts).any()):
        k = int((kept > counts).nonzero()[0])
        raise ValueError(
            f"class_counts asks for {int(kept[k])} samples of {classes[k] if classes else k}, which has "
            f"{int(counts[k])}: ask for at most as many as there are"
        )
    return kept


def long_tailed(
    labels: Tensor,
    num_classes: int,
    factor: float,
    profile: Profile = "exponential",
    protocol: Protocol = "seeded",
    generator: torch.Generator | None = None,
    classes: Sequence[str] | None = None,
    pareto_alpha: float = 6.0,
) -> Tensor:
    """Choose the samples of a long-tailed subset.

    Args:
        labels: (N,) class indices.
        num_classes: K.
        factor: n_max / n_min, at least 1.
        profile: Shape of the tail.
        protocol: ``seeded`` draws from ``generator``; ``ldam`` makes the choice of the code of Cao et al.
            2019 (LDAM-DRW), which most CIFAR-LT results share: numpy's legacy generator at seed 0, one
            shuffle per class in class order. It is the same for every seed and leaves numpy's global state
            alone.
        generator: Where ``seeded`` draws from; a CPU generator.
        classes: Names for the message.
        pareto_alpha: Exponent of the Pareto profile.

    Returns:
        Indices into ``labels``, class by class and within a class in the order drawn, int64. With a factor of
        1, all.

    Raises:
        ValueError: If a class would keep no sample, or ``seeded`` has no generator.

    Example:
        >>> labels = torch.arange(10).repeat_interleave(100)
        >>> chosen = long_tailed(labels, 10, factor=10, protocol="ldam")
        >>> class_counts(labels[chosen], 10).tolist()
        [100, 77, 59, 46, 35, 27, 21, 16, 12, 10]
    """
    kept = long_tailed_counts(class_counts(labels, num_classes), factor, profile, classes, pareto_alpha)
    if factor == 1:
        return torch.arange(len(labels))
    return subset_of_counts(labels, kept, protocol, generator)


def subset_of_counts(
    labels: Tensor, kept: Tensor, protocol: Protocol = "seeded", generator: torch.Generator | None = None
) -> Tensor:
    """Choose so many samples of each class.

    Args:
        labels: (N,) class indices.
        kept: (K,), int64, none larger than the class.
        protocol: As for :func:`long_tailed`.
        generator: Where ``seeded`` draws from; a CPU generator.

    Returns:
        Indices into ``labels``, class by class, int64.

    Raises:
        ValueError: If ``seeded`` has no generator.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1])
        >>> chosen = subset_of_counts(labels, torch.tensor([1, 2]), generator=torch.Generator().manual_seed(0))
        >>> labels[chosen].tolist()
        [0, 1, 1]
    """
    if protocol == "ldam":
        legacy = np.random.RandomState(0)
        parts = []
        for k, count in enumerate(kept.tolist()):
            members = np.flatnonzero(labels.numpy() == k)
            legacy.shuffle(members)
            parts.append(torch.from_numpy(members[:count]))
        return torch.cat(parts)
    if generator is None:
        raise ValueError("the seeded protocol needs a generator, got None: pass stream(seed, 'subset')")
    order, rank = _shuffled_by_class(labels, len(kept), generator)
    return order[rank < kept[labels[order]]]


def split_holdout(labels: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Split stratified by class into a training and a hold-out part.

    A class of n samples gives round(n fraction) of them to the hold-out, but never its only one, and at least
    one if it has two: the rarest classes are those whose tuning matters most.

    Args:
        labels: (N,) class indices.
        fraction: Share of the hold-out, between 0 and 1.
        generator: CPU generator.

    Returns:
        Indices of the training part and of the hold-out, each ascending, int64.

    Raises:
        ValueError: If the fraction is not between 0 and 1.

    Example:
        >>> labels = torch.tensor([0] * 10 + [1])
        >>> train, holdout = split_holdout(labels, 0.2, torch.Generator().manual_seed(0))
        >>> len(train), len(holdout)
        (9, 2)
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the hold-out's share must lie between 0 and 1, got {fraction:g}")
    num_classes = int(labels.max()) + 1 if len(labels) else 0
    counts = class_counts(labels, num_classes)
    wanted = (counts * fraction).round().long().clamp(min=1).minimum((counts - 1).clamp(min=0))
    order, rank = _shuffled_by_class(labels, num_classes, generator)
    held = rank < wanted[labels[order]]
    return order[~held].sort().values, order[held].sort().values


def _shuffled_by_class(labels: Tensor, num_classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return all indices grouped by class in random order, and the rank of each within its class."""
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]
    counts = class_counts(labels, num_classes)
    first = counts.cumsum(0) - counts
    return order, torch.arange(len(labels)) - first[labels[order]]
