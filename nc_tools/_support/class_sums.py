"""The sum of the features of each class.

Three rules hold. There is no loop over classes. A class without a sample has no mean: it never enters an average as a
zero vector. float32 features are multiplied in float32 and summed in float64, so that 50,000 samples far from the
origin lose nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Number of rows that are summed in float32 before the partial sum is added in float64.
_SUM_ROWS = 128


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Count the samples of every class and sum their features in float64, without copying the features.

    Samples are visited in the order of their classes, in runs of at most 128 rows of one class. A run is summed in
    float32 (float64 for float64 features), and the runs of a class in float64. Each feature is read once, and every
    call gives the same result.

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
    total, device = len(features), features.device
    ordered, order = labels.long().sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(num_classes + 1, device=device))
    counts, starts = starts.diff(), starts[:-1]
    if total == 0:
        return counts, features.new_zeros(num_classes, features.shape[1], dtype=torch.float64)
    cuts = torch.cat([starts, torch.arange(0, total, _SUM_ROWS, device=device)]).sort().values
    partial = F.embedding_bag(order, features, cuts, mode="sum").double()
    first_run = torch.searchsorted(cuts, starts)
    runs = torch.arange(len(cuts), device=device)
    return counts, F.embedding_bag(runs, partial, first_run, mode="sum")


def group_classes(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Number the classes of a batch from 0 without gaps, so that a batch costs O(N D) for any number of classes.

    Returns the group of every sample (N,), and the class of every group. With more classes than samples there are N
    groups; groups without a sample have class 0. So no size depends on the data, and the device need not synchronize.
    """
    if num_classes <= len(labels):
        return labels, torch.arange(num_classes, device=labels.device)
    ordered, order = labels.sort(stable=True)
    group_ordered = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    group = torch.empty_like(labels).scatter_(0, order, group_ordered)
    return group, torch.zeros_like(labels).scatter_(0, group_ordered, ordered)
