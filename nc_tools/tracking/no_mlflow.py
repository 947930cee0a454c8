"""Runs that stay on disk: nothing is sent to MLflow, which need not be installed."""

from __future__ import annotations

import shlex
from pathlib import Path

NO_MLFLOW = "none"
"""The tracking URI that switches MLflow off."""


def links_without_mlflow(root: Path | str, report: Path | None = None) -> list[str]:
    """Return lines to print that say where the report is and how the runs get to MLflow later.

    Args:
        root: Output folder.
        report: The page to name; None for that of the experiment's own baseline.
    """
    root = Path(root).resolve()
    report = (report or root / "report" / "comparison.html").resolve()
    lines = [f"Report: {report.as_uri()}"] if report.exists() else []
    return [*lines, f"The runs are not in MLflow. To send them: {shlex.join(['nc-tools', 'sync', str(root)])}"]
