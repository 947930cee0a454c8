"""Track the runs of training loops in files on disk (their records), and copy the runs to MLflow.

The record on disk is complete by itself; the process that trains neither waits for a server nor imports MLflow.
``MlflowSync`` copies records to MLflow from a separate process, and can be repeated at any time.
"""

from nc_tools.tracking.mlflow_sync import MlflowSync
from nc_tools.tracking.sync_report import SyncReport
from nc_tools.tracking.track import track
from nc_tools.tracking.tracked_data import TrackedData

__all__ = ["MlflowSync", "SyncReport", "TrackedData", "track"]
