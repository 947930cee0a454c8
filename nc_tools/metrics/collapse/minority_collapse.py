"""Minority collapse: the class vectors (rows of the head's weight) of rare classes become equal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.checks import check_finite
from nc_tools.metrics.collapse.mean_geometry import finite_values, gram_blocks


def minority_collapse(
    weight: Tensor, class_counts: Tensor | Sequence[int], num_minority: int | None = None
) -> dict[str, float]:
    """Measure minority collapse: how close to each other, and how short, the rarest classes' rows of the head are.

    Under strong imbalance, cross-entropy lets the rows of rare classes become equal, so that the head cannot
    distinguish these classes, however good the features are. With the classes divided into the rarest ("minority") and
    all others ("majority"),

        minority_cosine      mean cosine over pairs of rare classes
        minority_cosine_max  the largest of them: 1 means that two rows have merged
        minority_angle_min   the smallest angle between two rare classes, degrees
        majority_cosine      mean cosine over pairs of the other classes
        cross_cosine         mean cosine between rare and other classes
        minority_norm_ratio  mean norm of the rare rows / mean norm of the others

    A simplex frame has -1/(K - 1) for all cosines and 1 for the ratio; ``seli_geometry`` has the values in the limit of
    vanishing regularization. Sources: Fang, He, Long and Su (2021); the pairs as in Thrampoulidis et al. (2022).

    Args:
        weight: (K, D), as it is, not centered.
        class_counts: Training samples of each class (K,). A class without samples counts as rare: its row exists.
        num_minority: The number of rare classes; by default a third of K, at least 2. Of classes that are equally
            frequent, those of higher index count as rarer.

    Returns:
        The quantities by name; none if all classes are equally frequent or K < 3.

    Raises:
        ValueError: If shapes do not fit, a row is not finite, or ``num_minority`` is not between 2 and K - 1.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [-0.5, 0.5], [-0.5, 0.5]])
        >>> round(minority_collapse(rows, [100, 5, 5])["minority_cosine_max"], 6)
        1.0
    """
    if weight.ndim != 2:
        raise ValueError(f"weight must have the shape (K, D), got {tuple(weight.shape)}")
    num_classes = len(weight)
    counts = torch.as_tensor(class_counts).to(weight.device)
    if counts.shape != (num_classes,):
        raise ValueError(f"class_counts must hold one number for each of {num_classes} rows, got {tuple(counts.shape)}")
    check_finite("weight", weight)
    if num_minority is not None and not 2 <= num_minority < num_classes:
        raise ValueError(f"num_minority must be between 2 and K - 1 = {num_classes - 1}, got {num_minority}")
    if num_classes < 3 or bool((counts == counts[0]).all()):
        return {}
    with measuring_precision(weight.device):
        rows = weight.detach().double()
        norms = torch.linalg.vector_norm(rows, dim=1)
        order = counts.argsort(descending=True, stable=True)
        num_common = num_classes - (num_minority or min(max(2, num_classes // 3), num_classes - 1))
        common, rare = order[:num_common], order[num_common:]
        units = rows / norms[:, None]
        mean, largest = _pairs(units[rare])
        values = {
            "minority_cosine": mean,
            "minority_cosine_max": largest,
            "minority_angle_min": largest.clamp(-1, 1).acos() * (180 / math.pi),
            "majority_cosine": _pairs(units[common])[0],
            "cross_cosine": units[common].mean(dim=0) @ units[rare].mean(dim=0),
            "minority_norm_ratio": norms[rare].mean() / norms[common].mean(),
        }
        return finite_values(values)


def _pairs(units: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the largest cosine over pairs of different rows; NaN if there is no pair."""
    total, largest = units.new_zeros(()), units.new_full((), -torch.inf)
    for start, gram in gram_blocks(units):
        rows = torch.arange(start, start + len(gram), device=units.device)
        gram[rows - start, rows] = 0
        total = total + gram.sum()
        gram[rows - start, rows] = -torch.inf
        largest = largest.maximum(gram.max())
    pairs = len(units) * (len(units) - 1)
    return total / pairs, largest
