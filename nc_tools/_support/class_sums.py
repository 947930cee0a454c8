"""Sums over classes, and the arithmetic that all measures share.

All sums over classes are here. Three rules hold: there is no loop over classes; a class without a sample has no mean
(it is never a zero vector in an average); float32 features are multiplied in float32 but summed in float64, so that
50,000 samples far from the origin lose no precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

# Number of rows that are summed in float32 before the partial sum is added in float64.
_SUM_ROWS = 128


@contextmanager
def measuring_precision(device: torch.device) -> Iterator[None]:
    """Run without gradients, autocast, TF32 or bfloat16 products, whatever the caller has switched on.

    Measures must resolve a within-class variance of 1e-4 of the between-class variance; half precision cannot.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def at_least_float32(values: Tensor) -> Tensor:
    """Return ``values`` in float64 if they are float64 and in float32 otherwise.

    Raises:
        TypeError: If they are not real floating-point numbers.
    """
    if not values.is_floating_point():
        raise TypeError(f"features must be floating-point, got {values.dtype}: convert them with .float()")
    return values if values.dtype == torch.float64 else values.float()


def check_tensors(given: Mapping[str, object]) -> None:
    """Check that what is given, by name, are tensors.

    Raises:
        TypeError: If one is not.
    """
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}: torch.as_tensor makes one")


def check_pair(features: Tensor, labels: Tensor) -> None:
    """Check that features (N, D) and labels (N,) belong together, looking at shapes and types alone.

    Raises:
        TypeError: If one is no tensor or the labels are not integers.
        ValueError: If the shapes do not fit.
    """
    check_tensors({"features": features, "labels": labels})
    if features.ndim != 2:
        raise ValueError(f"features must have the shape (N, D), got {tuple(features.shape)}: flatten them first")
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels must have the shape ({len(features)},) to fit the features, got {tuple(labels.shape)}"
        )
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integer class indices, got {labels.dtype}")


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
    """Number the classes that occur in a batch consecutively, so that a batch costs O(N D) for any number of classes.

    Returns the group of every sample (N,), and the class of every group. With more classes than samples there are N
    groups; groups without a sample have class 0. So no size depends on the data, and the device need not synchronize.
    """
    if num_classes <= len(labels):
        return labels, torch.arange(num_classes, device=labels.device)
    ordered, order = labels.sort(stable=True)
    group_ordered = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    group = torch.empty_like(labels).scatter_(0, order, group_ordered)
    return group, torch.zeros_like(labels).scatter_(0, group_ordered, ordered)
