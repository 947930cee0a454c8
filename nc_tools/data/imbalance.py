"""Draw long-tailed subsets and stratified splits of a labeled set, as index tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nc_tools.data.data_config import Profile, SubsetProtocol, check_own_counts
from nc_tools.data.short_list import short_list


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
        TypeError: If the labels are not class indices.
        ValueError: If one of them is out of range.
    """
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be class indices (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    if outside := int(((labels < 0) | (labels >= num_classes)).sum()):
        raise ValueError(f"labels must lie in [0, {num_classes}), but {outside} of {len(labels)} do not")
    return torch.bincount(labels, minlength=num_classes)


def long_tailed_counts(
    counts: Tensor,
    factor: float,
    profile: Profile = "exponential",
    classes: Sequence[str] | None = None,
    pareto_alpha: float = 6.0,
) -> Tensor:
    """Return the number of samples of each class in a long-tailed subset.

    Class k keeps floor(n_max share_k) samples, with

        exponential  share_k = factor^(-k / (K - 1))
        step         share_k = 1 for the first K // 2 classes, 1 / factor for the others
        pareto       share_k = r + (1 - r) x_k / x_0, r = 1 / factor, x_k = ((k + 1/2) / (K - 1/2))^(-1 / alpha) - 1

    Source: Cui et al. 2019, section 5.1, and Cao et al. 2019, section 4.1, with their rounding. They start from
    balanced sets. Here n_max is the largest size for which every class has enough samples, so that the factor holds on
    any set. A factor of 1 keeps all samples, balanced or not.

    The Pareto profile is that of ImageNet-LT and Places-LT (Liu et al. 2019, section 4.1: alpha = 6). Those are drawn
    at random and published as lists. Here the quantiles of the same distribution are used in order, scaled to begin at
    n_max and to end at n_max / factor. With 1280 images at most and a factor of 256, as in ImageNet-LT, 349 of 1000
    classes have more than 100 images, where the published list has 385.

    Args:
        counts: (K,) available samples.
        factor: n_max / n_min, at least 1.
        profile: Shape of the tail.
        classes: K names for the error message.
        pareto_alpha: Exponent of the Pareto profile; smaller values give fewer and larger head classes.

    Returns:
        (K,) int64.

    Raises:
        ValueError: If the factor is below 1, alpha is not positive or a class would keep no sample.

    Example:
        >>> long_tailed_counts(torch.full((10,), 5000), 100).tolist()
        [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    if not 1 <= factor < math.inf:
        raise ValueError(
            f"factor, the size of the largest class divided by that of the smallest, must be at least 1, got {factor:g}"
        )
    available = [int(count) for count in counts]
    share = _shares(len(available), factor, profile, pareto_alpha)
    largest = min(math.ceil((n + 1) / s) - 1 for n, s in zip(available, share, strict=True))
    while any(int(largest * s) > n for n, s in zip(available, share, strict=True)):
        largest -= 1  # the division above may round up in its last digit
    kept = available if factor == 1 else [int(largest * s) for s in share]
    # A class without any sample makes all counts small, so that it is the one to name.
    missing = [k for k, n in enumerate(available) if n < 1] or [k for k, n in enumerate(kept) if n < 1]
    if missing:
        names = short_list([classes[k] if classes else str(k) for k in missing])
        raise ValueError(
            f"every class needs at least one training sample, but with imbalance {factor:g} none is left of {names}: "
            "lower the imbalance or add images"
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
        shares = [x / tail[0] if tail[0] > 0 else 1.0 for x in tail]
        return [share + ratio * (1 - share) for share in shares]  # exactly 1 and the ratio at the ends
    raise ValueError(f"profile must be 'exponential', 'step' or 'pareto', got {profile!r}")


def own_counts(available: Tensor, class_counts: Sequence[int], classes: Sequence[str] | None = None) -> Tensor:
    """Check class counts that the user has chosen against the available samples.

    Args:
        available: (K,) available samples.
        class_counts: K numbers of samples to keep.
        classes: K names for the error message.

    Returns:
        ``class_counts`` as (K,) int64.

    Raises:
        ValueError: If their number is not K, one is not positive, or a class has fewer samples.

    Example:
        >>> own_counts(torch.tensor([5, 5]), (5, 1)).tolist()
        [5, 1]
    """
    check_own_counts(class_counts)
    if len(class_counts) != len(available):
        raise ValueError(
            f"class_counts must have one number for each of the {len(available)} classes, got {len(class_counts)}"
        )
    kept = torch.tensor([int(count) for count in class_counts], dtype=torch.int64)
    if bool((kept > available).any()):
        k = int((kept > available).nonzero()[0])
        raise ValueError(
            f"class_counts has {int(kept[k])} samples for the class {classes[k] if classes else k}, but only "
            f"{int(available[k])} are available: lower that number"
        )
    return kept


def long_tailed(
    labels: Tensor,
    num_classes: int,
    factor: float,
    profile: Profile = "exponential",
    protocol: SubsetProtocol = "seeded",
    generator: torch.Generator | None = None,
    classes: Sequence[str] | None = None,
    pareto_alpha: float = 6.0,
) -> Tensor:
    """Return the samples of a long-tailed subset.

    Args:
        labels: (N,) class indices.
        num_classes: K.
        factor: n_max / n_min, at least 1.
        profile: Shape of the tail.
        protocol: ``seeded`` draws from ``generator``. ``ldam`` selects the samples of the code of Cao et al.
            2019 (LDAM-DRW), on which most CIFAR-LT results are based: numpy's legacy generator with seed 0, one
            shuffle per class in class order. They are the same for every seed. numpy's global state is not
            changed.
        generator: CPU generator for ``seeded``.
        classes: K names for the error message.
        pareto_alpha: Exponent of the Pareto profile.

    Returns:
        Indices into ``labels``, class by class and within a class in the order drawn, int64. With a factor of
        1, all.

    Raises:
        ValueError: If a class would keep no sample, or ``seeded`` has no generator.

    Example:
        >>> labels = torch.arange(10).repeat_interleave(100)
        >>> subset = long_tailed(labels, 10, factor=10, protocol="ldam")
        >>> class_counts(labels[subset], 10).tolist()
        [100, 77, 59, 46, 35, 27, 21, 16, 12, 10]
    """
    kept = long_tailed_counts(class_counts(labels, num_classes), factor, profile, classes, pareto_alpha)
    if factor == 1:
        return torch.arange(len(labels))
    return subset_of_counts(labels, kept, protocol, generator)


def subset_of_counts(
    labels: Tensor, kept: Tensor, protocol: SubsetProtocol = "seeded", generator: torch.Generator | None = None
) -> Tensor:
    """Return a subset with given numbers of samples of each class.

    Args:
        labels: (N,) class indices.
        kept: (K,) samples to keep, int64, none larger than the class.
        protocol: As for :func:`long_tailed`.
        generator: CPU generator for ``seeded``.

    Returns:
        Indices into ``labels``, class by class, int64.

    Raises:
        ValueError: If ``seeded`` has no generator.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1])
        >>> subset = subset_of_counts(labels, torch.tensor([1, 2]), generator=torch.Generator().manual_seed(0))
        >>> labels[subset].tolist()
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
        raise ValueError("the protocol 'seeded' needs a generator, got None: pass generator=stream(seed, 'subset')")
    order, rank = _shuffled_by_class(labels, len(kept), generator)
    return order[rank < kept[labels[order]]]


def split_holdout(labels: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Split a set into a training and a hold-out part, stratified by class.

    Of a class with n samples, round(n fraction) go to the hold-out; at least one if the class has two, and never its
    only one. So the rarest classes, for which tuning matters most, are in the hold-out too.

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
        raise ValueError(f"the share of the hold-out must lie between 0 and 1, got {fraction:g}")
    num_classes = int(labels.max()) + 1 if len(labels) else 0
    counts = class_counts(labels, num_classes)
    held_out = (counts * fraction).round().long().clamp(min=1).minimum((counts - 1).clamp(min=0))
    order, rank = _shuffled_by_class(labels, num_classes, generator)
    in_holdout = rank < held_out[labels[order]]
    return order[~in_holdout].sort().values, order[in_holdout].sort().values


def _shuffled_by_class(labels: Tensor, num_classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return all indices grouped by class in random order, and the rank of each within its class."""
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]
    counts = class_counts(labels, num_classes)
    first = counts.cumsum(0) - counts
    return order, torch.arange(len(labels)) - first[labels[order]]
