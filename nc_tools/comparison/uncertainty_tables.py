"""Prediction sets and selective accuracy of each arm, also for rare and frequent classes."""

from __future__ import annotations

from dataclasses import dataclass

from nc_tools.comparison.metric_entry import CONFORMAL_WORDS
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import mean_text

_COLUMNS = {
    "coverage": "coverage",
    "coverage_balanced": "mean of classes",
    "coverage_worst": "worst class",
    "coverage_few": "few-shot",
    "coverage_tail": "tail third",
    "coverage_head": "head third",
    "size": "size",
    "size_few": "size, few-shot",
}


@dataclass(frozen=True)
class SetTable:
    """The sets of one method: its name, its columns, and (arm, cells) for each arm."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def set_tables(comparison: Comparison) -> list[SetTable]:
    """Return a table for each method of prediction sets that the runs recorded."""
    tables = []
    for method, words in CONFORMAL_WORDS.items():
        keys = {f"test/conformal/{method}/{name}": heading for name, heading in _COLUMNS.items()}
        keys = {key: heading for key, heading in keys.items() if key in comparison.metrics}
        if keys:
            tables.append(SetTable(words, tuple(keys.values()), _rows(comparison, list(keys))))
    return tables


def selective_table(comparison: Comparison) -> SetTable | None:
    """Return the table of the surest predictions; None if no run recorded it."""
    keys = [key for key in comparison.metrics if key.startswith("test/selective/")]
    if not keys:
        return None
    headings = tuple(metric_info(key).label.removeprefix("surest 80 %, ") for key in keys)
    return SetTable("surest 80 % of the predictions", headings, _rows(comparison, keys))


def _rows(comparison: Comparison, keys: list[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((arm, tuple(mean_text(comparison, arm, key) for key in keys)) for arm in comparison.arms)
