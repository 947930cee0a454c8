"""The cost of each arm: training time, memory and parameters."""

from __future__ import annotations

from dataclasses import dataclass

from nc_tools.comparison.metric_table import METRICS
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import mean_text


@dataclass(frozen=True)
class CostBar:
    """The cost of one arm as a bar: its length in percent of the longest, its ratio to the baseline, and all costs."""

    arm: str
    length: float
    ratio: str
    texts: tuple[str, ...]


def cost_keys(comparison: Comparison) -> list[str]:
    """Return the keys of the cost metrics, such as training time, that at least one run has."""
    return [entry.key for entry in METRICS if entry.cost and entry.key in comparison.metrics]


def most_side_by_side(comparison: Comparison) -> int:
    """Return how many runs trained in one process: the largest mean of an arm, rounded; 1 if no run recorded it."""
    rows = [comparison.row(arm, "perf/side_by_side") for arm in comparison.arms]
    return round(max((row.mean for row in rows if row is not None and row.mean is not None), default=1.0))


def cost_bars(comparison: Comparison) -> list[CostBar]:
    """Return one bar per arm for the first cost metric that at least one run has, usually the training time."""
    keys = cost_keys(comparison)
    if not keys:
        return []
    means = {arm: (row.mean if (row := comparison.row(arm, keys[0])) else None) for arm in comparison.arms}
    longest = max((value for value in means.values() if value), default=1.0)
    base = means[comparison.baseline]
    return [
        CostBar(
            arm,
            100 * value / longest,
            f"{value / base:.2f} ×" if base else "–",
            tuple(mean_text(comparison, arm, key) for key in keys),
        )
        for arm, value in means.items()
        if value
    ]
