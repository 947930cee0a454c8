"""Runs on disk, and MLflow as a view of them.

A run's own record is the truth; nothing that trains talks to a server or imports MLflow. ``MlflowSync`` and
``LiveSync`` mirror records into MLflow, as often as one likes, from a process of its own.
"""

from nc_tools._support.signals import Killed
from nc_tools.run_records.identity import RunIdentity, RunKind, hash_config
from nc_tools.run_records.liveness import killed_on_sigterm
from nc_tools.run_records.reader import Scan, StoredRun, mark_killed, read_run, read_runs, scan
from nc_tools.run_records.redact import redact
from nc_tools.run_records.writer import RunRecord
from nc_tools.tracking.links import direct_links
from nc_tools.tracking.live import LiveSync
from nc_tools.tracking.mlflow_sync import MlflowSync
from nc_tools.tracking.sync_report import SyncReport
from nc_tools.tracking.track import track

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
    "direct_links",
    "hash_config",
    "killed_on_sigterm",
    "mark_killed",
    "read_run",
    "read_runs",
    "redact",
    "scan",
    "track",
]
