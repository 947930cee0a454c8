"""Calibration of each arm before and after each kind of scaling, one table for each measure."""

from __future__ import annotations

from dataclasses import dataclass

from nc_tools.comparison.metric_info import MetricInfo, metric_info
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import mean_text

_MEASURES = ("ece", "nll", "brier")
_GROUPS = {
    "cal": "as trained",
    "cal_ts": "temperature",
    "cal_vs": "vector scaling",
    "cal_ds": "Dirichlet scaling",
    "cal_oracle": "oracle temperature",
}


@dataclass(frozen=True)
class CalibrationTable:
    """The table of one measure: a column for each kind of scaling, and (arm, cells) for each arm."""

    metric: MetricInfo
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def calibration_tables(comparison: Comparison) -> list[CalibrationTable]:
    """Return the tables of the measures that were recorded before and after scaling."""
    tables = []
    for measure in _MEASURES:
        keys = {f"test/{group}/{measure}": words for group, words in _GROUPS.items()}
        keys = {key: words for key, words in keys.items() if key in comparison.metrics}
        if len(keys) > 1:
            rows = tuple((arm, tuple(mean_text(comparison, arm, key) for key in keys)) for arm in comparison.arms)
            tables.append(CalibrationTable(metric_info(f"test/cal/{measure}"), tuple(keys.values()), rows))
    return tables
