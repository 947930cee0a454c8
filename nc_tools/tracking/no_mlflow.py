"""Runs that stay on disk: nothing is sent to MLflow, which need not be installed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from nc_tools.tracking.mlflow_sync import MlflowSync

NO_MLFLOW = "none"
"""The tracking URI that switches MLflow off."""


def sync_unless_off(root: Path | str, tracking_uri: str | None) -> AbstractContextManager[MlflowSync | None]:
    """Return a context manager that sends the runs of an output folder to MLflow, unless the tracking URI is "none"."""
    return nullcontext() if tracking_uri == NO_MLFLOW else MlflowSync(root, tracking_uri)
