"""Draw long-tailed subsets and stratified splits of a labeled set, as index tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nc_tools.data.data_config import Profile, SubsetProtocol, TailOrder
from nc_tools.data.tail_profile import long_tailed_counts


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


def long_tailed(
    labels: Tensor,
    num_classes: int,
    factor: float,
    profile: Profile = "exponential",
    protocol: SubsetProtocol = "seeded",
    generator: torch.Generator | None = None,
    classes: Sequence[str] | None = None,
    pareto_alpha: float = 6.0,
    order: TailOrder = "frequency",
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
        order: How classes are ranked, see :func:`long_tailed_counts`.

    Returns:
        Indices into ``labels``, class by class and within a class in the order drawn, int64. With a factor of
        1, all indices in ascending order.

    Raises:
        ValueError: If a class would keep no sample, or ``seeded`` has no generator.

    Example:
        >>> labels = torch.arange(10).repeat_interleave(100)
        >>> subset = long_tailed(labels, 10, factor=10, protocol="ldam")
        >>> class_counts(labels[subset], 10).tolist()
        [100, 77, 59, 46, 35, 27, 21, 16, 12, 10]
    """
    kept = long_tailed_counts(class_counts(labels, num_classes), factor, profile, classes, pareto_alpha, order)
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

    Of a class with n samples, round(n fraction) go to the hold-out, at least one if n > 1, and never all of them. So
    the rarest classes, for which tuning matters most, are in the hold-out too.

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
