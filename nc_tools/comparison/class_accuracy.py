"""The accuracy of each class in each arm, and the classes that an arm confuses more or less often than the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from nc_tools.comparison.result import Comparison

_MOST_CELLS = 3000
_MOST_PAIRS = 12


@dataclass(frozen=True)
class ClassRow:
    """One class: its name, its mean number of training images, and the mean value of each arm that has one."""

    name: str
    train_count: float
    by_arm: Mapping[str, float]


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that are predicted as another: their share of that class's test images in both arms."""

    true: str
    predicted: str
    baseline: float
    arm: float


def class_rows(comparison: Comparison, method: str = "") -> list[ClassRow]:
    """Return the classes with their recall, the most frequent first; equally frequent ones keep their order.

    Args:
        comparison: The comparison.
        method: A method of prediction sets: its coverage is returned in place of the recall; "" for the recall.
    """
    counts: dict[str, list[float]] = {}
    values: dict[str, dict[str, list[float]]] = {}
    for arm, cells in comparison.cells.items():
        for run in cells.values():
            if run.per_class is None:
                continue
            table = run.per_class
            shares = table.coverage.get(method, ()) if method else table.recall
            if not shares:
                continue
            for name, count, value in zip(table.classes, table.train_counts, shares, strict=True):
                if math.isfinite(value):
                    counts.setdefault(name, []).append(count)
                    values.setdefault(name, {}).setdefault(arm, []).append(value)
    rows = [
        ClassRow(name, fmean(counts[name]), {arm: fmean(each) for arm, each in of_class.items()})
        for name, of_class in values.items()
    ]
    return sorted(rows, key=lambda row: -row.train_count)


def table_arms(comparison: Comparison, rows: list[ClassRow]) -> list[str]:
    """Return the arms that a table of the classes shows: all, or the best ones if there are too many cells.

    The baseline comes first.
    """
    arms = [arm for arm in comparison.arms if arm != comparison.baseline and any(arm in row.by_arm for row in rows)]
    most = max(2, _MOST_CELLS // max(len(rows), 1))
    if len(arms) >= most:
        arms = [arm for arm in comparison.ranked if arm in arms][: most - 1]
    return [comparison.baseline, *arms]


def class_names(comparison: Comparison, number: int) -> list[str]:
    """Return the names of K classes in the order of their labels, as the records say; numbers if they do not."""
    for cells in comparison.cells.values():
        for run in cells.values():
            names = run.per_class.classes if run.per_class is not None else run.data.get("classes") or ()
            if len(names) == number:
                return [str(name) for name in names]
    return [str(k) for k in range(number)]


def confused_pairs(comparison: Comparison) -> list[ConfusedPair]:
    """Return the pairs of classes that the baseline or the best arm confuses most often, sorted by the larger share.

    Returns:
        At most 12 pairs; none without the confusion matrices of both arms.
    """
    arms = list(comparison.confusion)
    if len(arms) != 2 or comparison.confusion[arms[0]].shape != comparison.confusion[arms[1]].shape:
        return []
    shares = []
    for arm in arms:
        counts = comparison.confusion[arm]
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        np.fill_diagonal(share, 0.0)
        shares.append(share)
    names = class_names(comparison, len(shares[0]))
    larger = np.maximum(shares[0], shares[1])
    order = np.argsort(-larger, axis=None, kind="stable")[:_MOST_PAIRS]
    places = [divmod(int(place), len(names)) for place in order]
    return [
        ConfusedPair(names[i], names[j], float(shares[0][i, j]), float(shares[1][i, j]))
        for i, j in places
        if larger[i, j] > 0
    ]
