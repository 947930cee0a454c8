"""Collapse of each subgroup of samples: is one sex, site or scanner further from its class than another?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.checks import checked_features
from nc_tools.metrics.collapse.mean_geometry import defined, present_means
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

    A model may be collapsed on the whole and yet keep a rare subgroup away from its class. For each subgroup g the
    quantities of ``neural_collapse`` over its own samples, under ``g/``, and with mu_k the class means of *all*
    samples, mu_kg those of subgroup g and v_k the variance of class k,

        g/spread_about_class   mean_k mean_{i in k, g} ||h_i - mu_k||^2 / mean_k ||mu_k - mu||^2
        subgroup_share         mean_k [ sum_g (n_kg/n_k) ||mu_kg - mu_k||^2 / v_k ]

    The first is comparable between subgroups, since the means are common; the second, in [0, 1], is the share of the
    within-class variance that a subgroup's name explains (0: subgroups lie on each other). Source: the (class,
    subgroup) view of Mouheb et al. (2024); the two formulas are ours.

    Args:
        features: (N, D).
        labels: (N,).
        groups: Subgroup of each sample (N,), integers from 0.
        weight: (K, D) or None, as for ``neural_collapse``.
        bias: (K,) or None.
        num_classes: K; by default the largest label, or row of the weight, plus one.
        names: What to call the subgroups; by default their numbers.

    Returns:
        The quantities by name; of a subgroup with samples of one class alone only its spread.

    Raises:
        TypeError: If labels or groups are not integers or the features not floating-point.
        ValueError: If shapes do not fit, a label or subgroup is out of range or a feature is not finite.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
        >>> found = subgroup_collapse(x, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]))
        >>> round(found["subgroup_share"], 6), round(found["0/spread_about_class"], 6)
        (1.0, 0.0625)
    """
    number = len(weight) if weight is not None and num_classes is None else num_classes
    x, y, number = checked_features(features, labels, number)
    _, member, several = checked_features(features, groups, None if names is None else len(names))
    with measuring_precision(x.device):
        counts, sums = class_sums(x, y, number)
        means = sums / counts.clamp(min=1)[:, None]
        _, centered = present_means(means, counts)
        between = centered.square().sum(dim=1).mean()
        squares = (x.double() - means[y]).square().sum(dim=1)
        cell = y * several + member
        cell_counts, cell_sums = class_sums(x, cell, number * several)
        cell_squares = torch.zeros(number * several, dtype=torch.float64, device=x.device).index_add_(0, cell, squares)
        shape = (number, several)
        spread = (cell_squares / cell_counts).view(shape).nanmean(dim=0)
        own = (cell_sums / cell_counts.clamp(min=1)[:, None]).view(number, several, -1)
        moved = (own - means[:, None]).square().sum(dim=2) * cell_counts.view(shape)
        share = (moved.sum(dim=1) / cell_squares.view(shape).sum(dim=1)).nanmean()
    called = [str(group) for group in range(several)] if names is None else list(names)
    values = {f"{name}/spread_about_class": spread[group] / between for group, name in enumerate(called)}
    found = defined(values | {"subgroup_share": share})
    for group, name in enumerate(called):
        chosen = member == group
        if int((cell_counts.view(shape)[:, group] > 0).sum()) >= 2:
            told = neural_collapse(x[chosen], y[chosen], weight, bias, number)
            found |= {f"{name}/{key}": value for key, value in told.items()}
    return found
