"""Split a labeled set by groups, such as patients: all images of a group come to the same side."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_SWEEPS = 4


def split_by_group(
    labels: Tensor, groups: Tensor, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Split a set into a training and a hold-out part, stratified by class as far as whole groups allow.

    Groups are visited in random order, those with the rarest class first, up to four times. A group changes its side if
    that lowers

        sum_k ((h_k - f n_k) / n_k)^2

    where h_k of the n_k samples of class k are in the hold-out and f is its share. Each class of the group must keep a
    training sample. Of a class that then has no hold-out sample, the smallest group that may move goes to the hold-out.
    A class whose samples all lie in one group is in the training part only.

    Args:
        labels: (N,) class indices.
        groups: (N,) group numbers, from 0.
        fraction: Share of the hold-out, between 0 and 1.
        generator: CPU generator.

    Returns:
        Indices of the training part and of the hold-out, each ascending, int64.

    Raises:
        ValueError: If the fraction is not between 0 and 1.

    Example:
        >>> labels, groups = torch.tensor([0, 0, 1, 1, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 2])
        >>> train, holdout = split_by_group(labels, groups, 0.3, torch.Generator().manual_seed(0))
        >>> set(groups[train].tolist()) & set(groups[holdout].tolist())
        set()
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the share of the hold-out must lie between 0 and 1, got {fraction:g}")
    if not len(labels):
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    num_classes, num_groups = int(labels.max()) + 1, int(groups.max()) + 1
    counts = torch.bincount(groups * num_classes + labels, minlength=num_groups * num_classes)
    table = counts.view(num_groups, num_classes)
    chosen = _choose_groups(table, fraction, generator)
    in_holdout = chosen[groups]
    return (~in_holdout).nonzero().flatten(), in_holdout.nonzero().flatten()


def _choose_groups(table: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return which groups are held out (G,), bool, from the number of samples of each group and class (G, K)."""
    rows = table.double().numpy()
    total = rows.sum(0)
    goal, size = total * fraction, total.clip(min=1)
    held = np.zeros_like(total)
    chosen = np.zeros(len(rows), dtype=bool)

    def may_move(g: int) -> bool:
        return bool((held + rows[g] < total)[rows[g] > 0].all())

    shuffled = torch.randperm(len(rows), generator=generator)
    rarest = torch.where(table > 0, table.sum(0), len(table) * int(table.max()) + 1).min(1).values
    order = shuffled[rarest[shuffled].argsort(stable=True)].tolist()
    for _ in range(_SWEEPS):
        before = chosen.copy()
        for g in order:
            after = held - rows[g] if chosen[g] else held + rows[g]
            closer = (((after - goal) / size) ** 2).sum() < (((held - goal) / size) ** 2).sum()
            if closer and (chosen[g] or may_move(g)):
                chosen[g], held = not chosen[g], after
        if (chosen == before).all():
            break
    for k in np.flatnonzero((held == 0) & (total > 0)).tolist():
        members = [g for g in order if rows[g, k] and not chosen[g]]
        smallest = next((g for g in sorted(members, key=lambda g: rows[g].sum()) if may_move(g)), None)
        if smallest is not None and not held[k]:
            chosen[smallest], held = True, held + rows[smallest]
    return torch.from_numpy(chosen)
