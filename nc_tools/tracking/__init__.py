"""Runs on disk, and MLflow as a view of them.

A run's own record is the truth; nothing that trains talks to a server or imports MLflow. ``MlflowSync`` and
``LiveSync`` mirror records into MLflow, as often as one likes, from a process of its own.
"""

from nc_tools.interruption import Killed
from nc_tools.tracking.identity import RunIdentity, RunKind, config_hash
from nc_tools.tracking.links import direct_links
from nc_tools.tracking.live import LiveSync
from nc_tools.tracking.loop import track
from nc_tools.tracking.mlflow_sync import MlflowSync
from nc_tools.tracking.process import killed_on_sigterm
from nc_tools.tracking.record import RunRecord
from nc_tools.tracking.redact import redact
from nc_tools.tracking.report import SyncReport
from nc_tools.tracking.stored import Scan, StoredRun, mend, read_run, read_runs, scan

__all__ = [
    "Killed",
    "LiveSync",
    "MlflowSync",
    "RunIdentity",
    "RunKind",
    "RunRecord",
    "Scan",
    "StoredRun",
    "SyncReport",
    "config_hash",
    "direct_links",
    "killed_on_sigterm",
    "mend",
    "read_run",
    "read_runs",
    "redact",
    "scan",
    "track",
]
