"""Whether collapse of the transfer set ranks the trained models of a comparison: a table, a line for each measure."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console

from nc_tools._support.atomic_write import atomic_write
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.result import Comparison
from nc_tools.metrics import Ranked
from nc_tools.metrics.transfer.collapse_ranking import correlations
from nc_tools.metrics.transfer.transfer_report import TARGET_COLLAPSE

RANKING = "transfer_ranking.csv"


def tell_ranking(comparison: Comparison, folder: Path, console: Console) -> None:
    """Write the final models in the order of their target's NC1, and print its rank correlation to the outcome.

    The outcome is the comparison's primary metric. Told over all runs, which are not independent of each other (arms
    share seeds, draws share both), and over the means of the arms.

    Args:
        comparison: Decided by a transfer metric.
        folder: Where ``transfer_ranking.csv`` goes.
        console: Where to print.
    """
    found: list[tuple[tuple[str, int, int], Ranked]] = []
    for arm, cells in comparison.cells.items():
        for (seed, draw), run in cells.items():
            told = {k: run.final[f"transfer/{k}"] for k in TARGET_COLLAPSE if f"transfer/{k}" in run.final}
            outcome = run.final.get(comparison.primary.key)
            found.append(((arm, seed, draw), Ranked(run.run_id, told, outcome)))
    found.sort(key=lambda pair: pair[1].collapse.get("nc1_pinv", float("inf")))
    if not any(row.collapse for _, row in found):
        return
    _write(folder / RANKING, found, comparison.primary.key)
    runs = correlations([row for _, row in found])
    arms = correlations([_mean([row for (of, _, _), row in found if of == arm], arm) for arm in comparison.cells])
    console.print()
    lines = [
        f"Collapse of the target's training part against {comparison.primary.label} (below 0: more collapse, better):",
        *(
            f"  {metric_info(f'test/nc/{k}').label.removeprefix('test ')}: runs {runs[k]}; means of arms {arms[k]}"
            for k in runs
        ),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _mean(rows: Sequence[Ranked], arm: str) -> Ranked:
    """Average the runs of an arm; a quantity that one of them lacks is left out."""
    keys = [key for key in TARGET_COLLAPSE if rows and all(key in row.collapse for row in rows)]
    reached = [row.outcome for row in rows if row.outcome is not None]
    collapse = {key: fmean(row.collapse[key] for row in rows) for key in keys}
    return Ranked(arm, collapse, fmean(reached) if reached else None)


def _write(path: Path, found: Sequence[tuple[tuple[str, int, int], Ranked]], primary: str) -> None:
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "arm", "seed", "draw", *TARGET_COLLAPSE, primary])
        for (arm, seed, draw), row in found:
            told = [f"{row.collapse[key]:.6g}" if key in row.collapse else "" for key in TARGET_COLLAPSE]
            writer.writerow([row.name, arm, seed, draw, *told, "" if row.outcome is None else f"{row.outcome:.6f}"])
