"""The class sizes of a long-tailed subset: how many samples of each class are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools.data.data_config import Profile, TailOrder
from nc_tools.data.own_counts import check_own_counts
from nc_tools.data.short_list import short_list


def long_tailed_counts(
    counts: Tensor,
    factor: float,
    profile: Profile = "exponential",
    classes: Sequence[str] | None = None,
    pareto_alpha: float = 6.0,
    order: TailOrder = "frequency",
) -> Tensor:
    """Return the number of samples of each class in a long-tailed subset.

    The class at rank k keeps floor(n_max share_k) samples, with

        exponential  share_k = factor^(-k / (K - 1))
        step         share_k = 1 for the first K // 2 classes, 1 / factor for the others
        pareto       share_k = r + (1 - r) x_k / x_0, r = 1 / factor, x_k = ((k + 1/2) / (K - 1/2))^(-1 / alpha) - 1

    The largest class has rank 0, so that the large classes of an imbalanced set stay the large ones; classes of equal
    size are ranked by their index. n_max is the largest number for which every class has enough samples, so that
    n_max / n_min is the factor, up to rounding, on any set. A factor of 1 keeps all samples, balanced or not.

    Source: Cui et al. 2019, section 5.1, and Cao et al. 2019, section 4.1, with their rounding. They start from
    balanced sets, where the rank is the class index.

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
        order: "frequency" ranks the classes by decreasing size, "class" by their index, whatever their size.

    Returns:
        (K,) int64.

    Raises:
        ValueError: If the factor is below 1, alpha is not positive or a class would keep no sample.

    Example:
        >>> long_tailed_counts(torch.full((10,), 5000), 100).tolist()
        [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
        >>> long_tailed_counts(torch.tensor([10, 200, 100]), 10).tolist()
        [10, 109, 34]
    """
    if not 1 <= factor < math.inf:
        raise ValueError(
            f"factor, the size of the largest class divided by that of the smallest, must be at least 1, got {factor:g}"
        )
    available = [int(count) for count in counts]
    shares = _shares_by_class(available, factor, profile, pareto_alpha, order)
    kept = available if factor == 1 else _kept(available, shares)
    if min(kept) < 1:
        names = [classes[k] if classes else str(k) for k in range(len(kept))]
        raise ValueError(_none_left(available, kept, names, factor, (profile, pareto_alpha, order)))
    return torch.tensor(kept, dtype=torch.int64)


def limiting_class(
    counts: Tensor,
    factor: float,
    profile: Profile = "exponential",
    pareto_alpha: float = 6.0,
    order: TailOrder = "frequency",
) -> int:
    """Return the index of the class that limits n_max: with more samples of it, all classes could be larger.

    The arguments are those of :func:`long_tailed_counts`.

    Example:
        >>> limiting_class(torch.tensor([100, 200, 1]), 10)
        2
    """
    available = [int(count) for count in counts]
    return _limit(available, _shares_by_class(available, factor, profile, pareto_alpha, order))


def own_counts(available: Tensor, class_counts: Sequence[int], classes: Sequence[str] | None = None) -> Tensor:
    """Check class counts that the user has chosen against the available samples.

    Args:
        available: (K,) available samples.
        class_counts: K numbers of samples to keep.
        classes: K names for the error message.

    Returns:
        ``class_counts`` as (K,) int64.

    Raises:
        ValueError: If there are not K numbers or fewer than two, one is not positive, or a class has fewer samples.

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


def _kept(available: Sequence[int], shares: Sequence[float]) -> list[int]:
    largest = min(math.ceil((n + 1) / s) - 1 for n, s in zip(available, shares, strict=True))
    while any(int(largest * s) > n for n, s in zip(available, shares, strict=True)):
        largest -= 1  # the division above may round up in its last digit
    return [int(largest * s) for s in shares]


def _limit(available: Sequence[int], shares: Sequence[float]) -> int:
    return min(range(len(available)), key=lambda k: (available[k] + 1) / shares[k])


def _none_left(
    available: Sequence[int],
    kept: Sequence[int],
    names: Sequence[str],
    factor: float,
    form: tuple[Profile, float, TailOrder],
) -> str:
    """Return the message for classes that keep no sample; it names the largest whole imbalance that keeps all."""
    if empty := [name for name, n in zip(names, available, strict=True) if n < 1]:
        return f"every class needs at least one training sample, but there is none of {short_list(empty)}: add images"
    lost = [name for name, n in zip(names, kept, strict=True) if n < 1]
    works, fails = 1, math.ceil(factor)
    while fails - works > 1:
        middle = (works + fails) // 2
        if min(_kept(available, _shares_by_class(available, middle, *form))) >= 1:
            works = middle
        else:
            fails = middle
    limit = _limit(available, _shares_by_class(available, factor, *form))
    return (
        f"every class needs at least one training sample, but with imbalance {factor:g} none is left of "
        f"{short_list(lost)}, because {names[limit]} has only {available[limit]} images: lower the imbalance to "
        f"{works}, or add images"
    )


def _shares_by_class(
    available: Sequence[int], factor: float, profile: Profile, pareto_alpha: float, order: TailOrder
) -> list[float]:
    """Return the size of each class as a share of n_max, in the order of the classes."""
    if order not in ("frequency", "class"):
        raise ValueError(f"order must be 'frequency' or 'class', got {order!r}")
    shares = _shares(len(available), factor, profile, pareto_alpha)
    if order == "class":
        return shares
    by_size = sorted(range(len(available)), key=lambda k: -available[k])  # stable: equal classes by their index
    return [share for _, share in sorted(zip(by_size, shares, strict=True))]


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
