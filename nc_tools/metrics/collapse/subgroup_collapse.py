"""Collapse of each subgroup of samples: is one sex, site or scanner farther from its class mean than another?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.checks import checked_features
from nc_tools.metrics.collapse.mean_geometry import finite_values, present_means
from nc_tools.metrics.collapse.neural_collapse import neural_collapse


def subgroup_collapse(
    features: Tensor,
    labels: Tensor,
    groups: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    num_classes: int | None = None,
    *,
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Measure collapse within each subgroup, and how much of a class's spread lies between its subgroups.

    All samples together may be collapsed while a rare subgroup stays far from its class mean. For each subgroup g, the
    result holds the quantities of ``neural_collapse`` over its own samples, under ``g/``. With mu_k the class means of
    *all* samples, mu_kg those of subgroup g and v_k the variance of class k, it also holds

        g/spread_about_class   mean_k mean_{i in k, g} ||h_i - mu_k||^2 / mean_k ||mu_k - mu||^2
        subgroup_share         mean_k [ sum_g (n_kg/n_k) ||mu_kg - mu_k||^2 / v_k ]

    The first can be compared between subgroups, since they share the class means. The second, in [0, 1], is the share
    of the within-class variance that the subgroup explains (0: all subgroups of a class have the same mean). Source:
    the (class, subgroup) view of Mouheb et al. (2024); the two formulas are ours.

    Args:
        features: (N, D).
        labels: (N,).
        groups: Index of each sample's subgroup (N,), integers from 0.
        weight: (K, D) or None, as for ``neural_collapse``.
        bias: (K,) or None.
        num_classes: K; by default the number of rows of ``weight``, or without it the largest label plus one.
        names: Names of the subgroups; by default their numbers.

    Returns:
        The quantities by name; for a subgroup with samples of one class only, its spread alone.

    Raises:
        TypeError: If labels or groups are not integers or the features not floating-point.
        ValueError: If shapes do not fit, a label or subgroup is out of range or a feature is not finite.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
        >>> values = subgroup_collapse(x, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]))
        >>> round(values["subgroup_share"], 6), round(values["0/spread_about_class"], 6)
        (1.0, 0.0625)
    """
    if weight is not None and num_classes is None:
        num_classes = len(weight)
    x, y, num_classes = checked_features(features, labels, num_classes)
    _, group, num_groups = checked_features(features, groups, None if names is None else len(names))
    with measuring_precision(x.device):
        counts, sums = class_sums(x, y, num_classes)
        means = sums / counts.clamp(min=1)[:, None]
        _, centered = present_means(means, counts)
        between = centered.square().sum(dim=1).mean()
        squares = (x.double() - means[y]).square().sum(dim=1)
        # A cell is one class of one subgroup.
        cell = y * num_groups + group
        cell_counts, cell_sums = class_sums(x, cell, num_classes * num_groups)
        cell_squares = torch.zeros_like(cell_counts, dtype=torch.float64).index_add_(0, cell, squares)
        cell_counts, cell_squares = (
            rearrange(part, "(k g) -> k g", g=num_groups) for part in (cell_counts, cell_squares)
        )
        cell_sums = rearrange(cell_sums, "(k g) d -> k g d", g=num_groups)
        spread = (cell_squares / cell_counts).nanmean(dim=0)
        shifts = cell_sums / cell_counts.clamp(min=1)[..., None] - means[:, None]
        shift_squares = (shifts.square().sum(dim=2) * cell_counts).sum(dim=1)
        share = (shift_squares / cell_squares.sum(dim=1)).nanmean()
    group_names = [str(number) for number in range(num_groups)] if names is None else list(names)
    spreads = {f"{name}/spread_about_class": spread[number] / between for number, name in enumerate(group_names)}
    result = finite_values(spreads | {"subgroup_share": share})
    for number, name in enumerate(group_names):
        members = group == number
        if int((cell_counts[:, number] > 0).sum()) >= 2:
            values = neural_collapse(x[members], y[members], weight, bias, num_classes)
            result |= {f"{name}/{key}": value for key, value in values.items()}
    return result
