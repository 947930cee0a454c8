"""The end of a comparison: table, report, and where all of it lies."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from nc_tools.comparison import compare, long_rows, render_terminal, write_comparison
from nc_tools.comparison.headline import headline
from nc_tools.experiment.evaluate.transfer_ranking import tell_ranking
from nc_tools.tracking import MlflowSync, direct_links


def report(out: Path, console: Console, sync: MlflowSync, *, baseline: str | None = None) -> None:
    """Compare the runs of an output folder, print the table, write the report, and have the next push send it.

    Args:
        out: The output folder.
        console: Where to print.
        sync: Sends the report with its next push.
        baseline: The arm to pair against; None for the experiment's own.

    Raises:
        ValueError: If there is nothing to compare.
        FileNotFoundError: If the folder holds no runs.
    """
    comparison = compare(out, baseline=baseline)
    console.print()
    render_terminal(comparison, console)
    write_comparison(comparison, out / "report")
    if comparison.primary.key.startswith("transfer/"):
        tell_ranking(comparison, out / "report", console)
    summary = {
        "suite": comparison.experiment.suite,
        "experiment": comparison.experiment.name,
        "headline": headline(comparison),
    }
    sync.stage_comparison(out / "report", summary, long_rows(comparison))


def say_where(out: Path, console: Console, tracking_uri: str | None) -> None:
    """Print where the report lies and how to open MLflow on the runs."""
    console.print()
    for line in direct_links(out, tracking_uri):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
