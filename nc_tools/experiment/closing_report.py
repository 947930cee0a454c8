"""The end of a comparison: print the results table, write the report, and print where both are."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from nc_tools._support.printable import printable
from nc_tools.comparison import compare, render_terminal, write_comparison
from nc_tools.comparison.read_experiment import read_experiment
from nc_tools.experiment.evaluate.transfer_ranking import report_ranking
from nc_tools.experiment.single_arm import print_single_arm
from nc_tools.tracking import direct_links
from nc_tools.tracking.no_mlflow import NO_MLFLOW, links_without_mlflow


def report_comparison(out: Path, console: Console, *, baseline: str | None = None) -> None:
    """Compare the runs of an output folder, print the results table, and write the report files.

    The results of an experiment with a single arm are only printed.

    Args:
        out: The output folder.
        console: Where to print.
        baseline: The arm to pair against; None for the experiment's own.

    Raises:
        ValueError: If there is nothing to compare.
        FileNotFoundError: If the folder holds no runs.
    """
    experiment = read_experiment(out)
    if len(experiment.arms) == 1 and baseline is None:
        print_single_arm(out, experiment, console)
        return
    comparison = compare(out, baseline=baseline)
    console.print()
    render_terminal(comparison, console)
    write_comparison(comparison, out / "report")
    if comparison.primary.key.startswith("transfer/"):
        report_ranking(comparison, out / "report", console)


def print_links(out: Path, console: Console, tracking_uri: str | None) -> None:
    """Print the address of the report and the command that shows the runs in MLflow."""
    console.print()
    lines = links_without_mlflow(out) if tracking_uri == NO_MLFLOW else direct_links(out, tracking_uri)
    for line in lines:
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
