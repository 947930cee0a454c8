"""The end of a comparison: print the results table, write the report, and print where both are."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from nc_tools._support.printable import printable
from nc_tools.comparison import compare, long_rows, render_terminal, write_comparison
from nc_tools.comparison.headline import headline
from nc_tools.experiment.evaluate.transfer_ranking import report_ranking
from nc_tools.tracking import MlflowSync, direct_links


def report_comparison(out: Path, console: Console, sync: MlflowSync, *, baseline: str | None = None) -> None:
    """Compare the runs of an output folder, print the results table, and write the report files.

    Args:
        out: The output folder.
        console: Where to print.
        sync: Sends the report to MLflow with its next push.
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
        report_ranking(comparison, out / "report", console)
    summary = {
        "suite": comparison.experiment.suite,
        "experiment": comparison.experiment.name,
        "headline": headline(comparison),
    }
    sync.stage_comparison(out / "report", summary, long_rows(comparison))


def print_links(out: Path, console: Console, tracking_uri: str | None) -> None:
    """Print the address of the report and the command that shows the runs in MLflow."""
    console.print()
    for line in direct_links(out, tracking_uri):
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
