"""The metrics of a comparison by group, for the tables of all metrics."""

from __future__ import annotations

from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.metric_table import METRICS
from nc_tools.comparison.result import Comparison


def metric_groups(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return (group, keys) in the order of the table of metrics; groups that it does not name come last."""
    order = list(dict.fromkeys(entry.group for entry in METRICS))
    groups: dict[str, list[str]] = {}
    for key in comparison.metrics:
        groups.setdefault(metric_info(key).group, []).append(key)
    names = sorted(groups, key=lambda name: order.index(name) if name in order else len(order))
    return [(name, groups[name]) for name in names]


def transfer_keys(comparison: Comparison) -> list[str]:
    """Return the keys of the accuracies on the transfer set that at least one run has."""
    return [key for key in comparison.metrics if key.startswith("transfer/") and key.endswith("/accuracy")]
