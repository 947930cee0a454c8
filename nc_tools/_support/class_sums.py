"""The sum of the features of each class.

Three rules hold. There is no loop over classes. A class without a sample has no mean: it never enters an average as a
zero vector. Features are summed in float64, so that features far from the origin lose nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Values that are converted to float64 at a time: half of a CPU's cache, and enough to keep an accelerator busy.
_BLOCK_CPU, _BLOCK_DEVICE = 1 << 19, 1 << 26


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Count the samples of every class and sum their features in float64, without a float64 copy of the features.

    Each feature is read once, and every call gives the same result. The sums have the rounding of float64, which grows
    with the samples of a class, to 2e-14 for two million: a mean of float32 features is exact even if their spread is a
    millionth of their size.

    Args:
        features: (N, D), float32 or float64.
        labels: (N,), integers in [0, num_classes).
        num_classes: K.

    Returns:
        Counts (K,) in int64 and sums (K, D) in float64; zero for a class without a sample.

    Raises:
        ValueError: If num_classes is below 1.

    Example:
        >>> counts, sums = class_sums(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, 0, 1]), 3)
        >>> counts.tolist(), sums.flatten().tolist()
        ([1, 2, 0], [2.0, 5.0, 0.0])
    """
    if num_classes < 1:  # without a bag, embedding_bag reads out of bounds and crashes the process
        raise ValueError(f"num_classes must be at least 1, got {num_classes}: labels are class indices from 0 on")
    total, width = features.shape
    device, target = features.device, labels.long()
    counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
    counts.index_add_(0, target, torch.ones_like(target))
    sums = torch.zeros(num_classes, width, dtype=torch.float64, device=device)
    step = max(1, (_BLOCK_CPU if device.type == "cpu" else _BLOCK_DEVICE) // max(width, 1))
    add = _add_in_order if device.type == "cpu" else _add_bags
    for start in range(0, total, step):
        add(sums, features[start : start + step].double(), target[start : start + step])
    return counts, sums


def _add_in_order(sums: Tensor, features: Tensor, labels: Tensor) -> None:
    """Add the features (B, D) of each class to its sum, sample by sample. On a GPU their order would not be fixed."""
    sums.index_add_(0, labels, features)


def _add_bags(sums: Tensor, features: Tensor, labels: Tensor) -> None:
    """Do the same in an order that is fixed on a GPU too: a sum for each class of the block, then one addition."""
    group, classes = group_classes(labels, len(sums))
    ordered, order = group.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(len(classes), device=labels.device))
    sums.index_add_(0, classes, F.embedding_bag(order, features, starts, mode="sum"))


def group_classes(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return at most N groups of equal labels, so that a batch costs O(N D) for any number of classes.

    With at most N classes, each class is the group of its own number. With more classes, those that occur are numbered
    from 0 in ascending order, and there are N groups; groups without a sample have class 0. So no size depends on the
    data, and the device need not synchronize.

    Returns:
        The group of every sample (N,), and the class of every group.
    """
    if num_classes <= len(labels):
        return labels, torch.arange(num_classes, device=labels.device)
    ordered, order = labels.sort(stable=True)
    group_ordered = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    group = torch.empty_like(labels).scatter_(0, order, group_ordered)
    return group, torch.zeros_like(labels).scatter_(0, group_ordered, ordered)
