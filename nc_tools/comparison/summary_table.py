"""The summary table of a comparison, one row per arm, as text for terminal, Markdown and HTML."""

from __future__ import annotations

from dataclasses import dataclass

from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.metric_table import METRICS
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.wording import difference_text, p_text


@dataclass(frozen=True)
class Column:
    """One column of the summary table: its short heading, and what it shows."""

    heading: str
    meaning: str


@dataclass(frozen=True)
class TableRow:
    """One row of the summary table: the results of one arm.

    Attributes:
        arm: The arm.
        cells: Texts in the order of the columns, without the arm's name.
        verdict: ``"baseline"``, ``"better"``, ``"worse"``, ``"open"``, or ``"none"`` without a result.
        why: Why there is no result, or what is missing.
    """

    arm: str
    cells: tuple[str, ...]
    verdict: str
    why: str = ""


def summary_columns(comparison: Comparison) -> tuple[Column, ...]:
    """Return the columns after the arm's name: four for the primary metric, then one per other metric."""
    primary = comparison.primary
    heading = primary.column or primary.label
    return (
        Column("n", "seeds with a value, × frames of each seed if there are several"),
        Column(f"{heading}{primary.arrow}", f"{primary.label}, mean ± sd of single runs; {primary.reading}"),
        Column("diff. [95 %]", f"paired difference to {comparison.baseline} with its 95 % t interval"),
        Column("Holm p", "p of the paired t test, Holm-adjusted over all arms"),
        *(column for column, _ in _metric_columns(comparison)),
    )


def summary_rows(comparison: Comparison) -> tuple[TableRow, ...]:
    """Return the rows of the summary table, one per arm, including arms without a result."""
    return tuple(_row(comparison, arm) for arm in comparison.arms)


def mean_text(comparison: Comparison, arm: str, metric: str) -> str:
    """Return an arm's mean of one metric as text."""
    row = comparison.row(arm, metric)
    return metric_info(metric).value(row.mean if row else None)


def _metric_columns(comparison: Comparison) -> list[tuple[Column, tuple[str, ...]]]:
    """Return the columns of the other metrics that any run has, each with the one or two metric keys that it shows."""
    columns: list[tuple[Column, tuple[str, ...]]] = []
    for entry in METRICS:
        if not entry.column or entry.key not in comparison.metrics or entry.key == comparison.primary.key:
            continue
        if entry.instead_of and entry.instead_of in comparison.metrics:
            continue
        keys: tuple[str, ...] = (entry.key,)
        heading, meaning = entry.column, entry.meaning
        if entry.then in comparison.metrics:
            keys, heading = (entry.key, entry.then), f"{heading}→TS"
            meaning = f"{meaning}, before → after temperature scaling"
        metric = metric_info(entry.key)
        columns.append((Column(f"{heading}{metric.arrow}", f"{meaning}; {metric.reading}"), keys))
    return columns


def _row(comparison: Comparison, arm: str) -> TableRow:
    state, primary = comparison.state(arm), comparison.primary
    row = comparison.row(arm, primary.key)
    why = "; ".join(state.unfinished)
    if row is None or row.mean is None:
        return TableRow(arm, (state.label, *["–"] * (len(summary_columns(comparison)) - 1)), "none", why)
    test = comparison.test(arm)
    return TableRow(
        arm,
        (
            state.label,
            primary.mean_and_sd(row.mean, row.sd).replace(" ", ""),
            "baseline" if arm == comparison.baseline else difference_text(row.paired, primary),
            "" if arm == comparison.baseline else p_text(row.p_holm),
            *("→".join(mean_text(comparison, arm, key) for key in keys) for _, keys in _metric_columns(comparison)),
        ),
        "baseline" if test is None else comparison.family.verdict(test),
        why,
    )
