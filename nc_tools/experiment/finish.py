"""The end of a comparison: table, report, MLflow, and what to do next."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console

from nc_tools.compare import compare, render_terminal, write_report
from nc_tools.tracking import MlflowSync, direct_links


def finish(out: Path, console: Console, *, baseline: str | None = None, tracking_uri: str | None = None) -> None:
    """Compare the runs of an output folder, print the table, write and send the report, say where all of it lies.

    Args:
        out: The output folder.
        console: Where to print.
        baseline: The arm to pair against; None for the experiment's own.
        tracking_uri: Where MLflow keeps runs; None for the store in the output folder.

    Raises:
        ValueError: If there is nothing to compare.
        FileNotFoundError: If the folder holds no runs.
    """
    comparison = compare(out, baseline=baseline)
    console.print()
    render_terminal(comparison, console)
    paths = write_report(comparison, out / "report")
    told = json.loads(paths["json"].read_text())
    sync = MlflowSync(out, tracking_uri, comparison.experiment.name)
    summary = {"suite": comparison.experiment.suite, "experiment": comparison.experiment.name}
    advice = sync.push_comparison(out / "report", summary, told["rows"]).advice(out)
    if advice is not None:
        print(f"nc_tools: {advice}", file=sys.stderr)
    console.print()
    for line in direct_links(out, tracking_uri):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
