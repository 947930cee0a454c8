"""The end of a comparison: print the results table, write the report, and print where both are and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nc_tools._support.printable import printable
from nc_tools.comparison.compare import compare
from nc_tools.comparison.next_steps import next_steps
from nc_tools.comparison.read_experiment import read_experiment
from nc_tools.comparison.report_files import report_folder, write_comparison
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.single_arm import print_single_arm
from nc_tools.comparison.terminal import render_terminal
from nc_tools.tracking import MlflowSync


def report_comparison(
    out: Path, console: Console, *, baseline: str | None = None, details: bool = False
) -> Comparison | None:
    """Compare the runs of an output folder, print the results table, and write the report files.

    The results of an experiment with a single arm are only printed.

    Args:
        out: The output folder.
        console: Where to print.
        baseline: The arm to pair against; None for the experiment's own.
        details: Print tests, power and variances too.

    Returns:
        The comparison; None for a single arm.

    Raises:
        ValueError: If there is nothing to compare.
        FileNotFoundError: If the folder holds no runs.
    """
    experiment = read_experiment(out)
    if len(experiment.arms) == 1 and baseline is None:
        print_single_arm(out, experiment, console)
        return None
    comparison = compare(out, baseline=baseline)
    print_and_write(comparison, report_folder(out, comparison), console, details=details)
    return comparison


def print_and_write(comparison: Comparison, folder: Path, console: Console, *, details: bool = False) -> None:
    """Print the results table of a comparison, and write its report to a folder."""
    console.print()
    render_terminal(comparison, console, details=details)
    write_comparison(comparison, folder)
    if comparison.primary.key.startswith("transfer/"):
        from nc_tools.comparison.transfer_ranking import report_ranking  # its correlations load torch

        report_ranking(comparison, folder, console)


def print_links(
    out: Path,
    console: Console,
    sync: MlflowSync | None,
    *,
    comparison: Comparison | None = None,
    details: bool = False,
) -> None:
    """Print what to do next, the address of the report, and how to see the runs in MLflow.

    Args:
        out: The output folder.
        console: Where to print.
        sync: What sends the runs; None if MLflow is off, and then the command that sends them is printed.
        comparison: The comparison that was printed; None to print no next steps.
        details: Whether the details of the comparison were printed.
    """
    if comparison is not None:
        print_next(comparison, shlex.join(["nc-tools", "compare", str(out)]), console, details=details)
    folder = out / "report" if comparison is None else report_folder(out, comparison)
    unsent = f"The runs are not in MLflow. To send them: {shlex.join(['nc-tools', 'sync', str(out)])}"
    print_places(folder, console, [unsent] if sync is None else sync.links())


def print_next(comparison: Comparison, command: str, console: Console, *, details: bool = False) -> None:
    """Print what to do next; ``command`` is the command that compares the same runs."""
    console.print()
    for line in ("Next:", *(f"  {step}" for step in next_steps(comparison, command, details=details))):
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def print_places(folder: Path, console: Console, links: Sequence[str] = ()) -> None:
    """Print the address of the report in a folder, if there is one, and further lines."""
    report = folder / "comparison.html"
    console.print()
    for line in [f"Report: {report.resolve().as_uri()}"] * report.exists() + [*links]:
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
