"""Whether collapse on the transfer set ranks the models of a comparison: a table with a row for each model."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.printable import csv_row, printable
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.result import Comparison
from nc_tools.metrics import Ranked
from nc_tools.metrics.transfer.collapse_ranking import correlations
from nc_tools.metrics.transfer.transfer_report import TARGET_COLLAPSE

RANKING = "transfer_ranking.csv"

_Rows = Sequence[tuple[tuple[str, int, int], Ranked]]


def report_ranking(comparison: Comparison, folder: Path, console: Console) -> None:
    """Write the final models ordered by NC1 on the transfer set, and print how that order correlates with the outcome.

    The outcome is the comparison's primary metric. The correlations are given over all runs, which are not independent
    (runs of an arm share its method, draws share a seed), and over the means of the arms.

    Args:
        comparison: A comparison whose primary metric is a transfer metric.
        folder: Where ``transfer_ranking.csv`` goes.
        console: Where to print.
    """
    rows: list[tuple[tuple[str, int, int], Ranked]] = []
    for arm, cells in comparison.cells.items():
        for (seed, draw), run in cells.items():
            collapse = {k: run.final[f"transfer/{k}"] for k in TARGET_COLLAPSE if f"transfer/{k}" in run.final}
            outcome = run.final.get(comparison.primary.key)
            rows.append(((arm, seed, draw), Ranked(run.run_id, collapse, outcome)))
    rows.sort(key=lambda pair: pair[1].collapse.get("nc1_pinv", float("inf")))
    if not any(row.collapse for _, row in rows):
        return
    _write(folder / RANKING, rows, comparison.primary.key)
    of_runs = correlations([row for _, row in rows])
    of_arms = correlations([_mean([row for (of, _, _), row in rows if of == arm], arm) for arm in comparison.cells])
    console.print()
    lines = [
        f"Collapse on the transfer training images against {comparison.primary.label} (below 0: more collapse, better):"
    ]
    for key, correlation in of_runs.items():
        label = metric_info(f"test/nc/{key}").label.removeprefix("test ")
        lines.append(f"  {label}: runs {correlation}; means of arms {of_arms[key]}")
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _mean(rows: Sequence[Ranked], arm: str) -> Ranked:
    """Average the runs of an arm. A measure of collapse that one of them lacks is left out."""
    keys = [key for key in TARGET_COLLAPSE if rows and all(key in row.collapse for row in rows)]
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    collapse = {key: fmean(row.collapse[key] for row in rows) for key in keys}
    return Ranked(arm, collapse, fmean(outcomes) if outcomes else None)


def _write(path: Path, rows: _Rows, primary: str) -> None:
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "arm", "seed", "draw", *TARGET_COLLAPSE, primary])
        for (arm, seed, draw), row in rows:
            collapse = [f"{row.collapse[key]:.6g}" if key in row.collapse else "" for key in TARGET_COLLAPSE]
            outcome = "" if row.outcome is None else f"{row.outcome:.6f}"
            writer.writerow(csv_row([row.name, arm, seed, draw, *collapse, outcome]))
