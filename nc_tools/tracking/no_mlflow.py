"""Runs that stay on disk: nothing is sent to MLflow, which need not be installed."""

from __future__ import annotations

import shlex
from pathlib import Path

NO_MLFLOW = "none"
"""The tracking URI that switches MLflow off."""


def links_without_mlflow(root: Path | str) -> list[str]:
    """Return lines to print that say where the report is and how the runs get to MLflow later."""
    root = Path(root).resolve()
    report = root / "report" / "comparison.html"
    lines = [f"Report: {report.as_uri()}"] if report.exists() else []
    return [*lines, f"The runs are not in MLflow. To send them: {shlex.join(['nc-tools', 'sync', str(root)])}"]
