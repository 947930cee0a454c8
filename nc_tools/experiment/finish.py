"""The end of a comparison: table, report, MLflow, and what to do next."""

from __future__ import annotations

from rich.console import Console

from nc_tools.compare import compare, render_terminal, write_report
from nc_tools.experiment.run import Options, Plan
from nc_tools.tracking import MlflowSync


def finish(plan: Plan, options: Options, sync: MlflowSync, console: Console) -> None:
    """Compare what was run, print the table, write the report, send it, and say where all of it lies."""
    raise NotImplementedError
