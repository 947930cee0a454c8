"""The files of each training run (its record): written while it runs, read for comparisons and for MLflow."""

from nc_tools._support.signals import Killed, killed_on_sigterm
from nc_tools.run_records.identity import RunIdentity, RunKind, hash_config
from nc_tools.run_records.reader import (
    Scan,
    StoredRun,
    mark_killed,
    read_run,
    read_runs,
    run_folders,
    scan,
)
from nc_tools.run_records.recover import RecoveredRun, recover_run
from nc_tools.run_records.writer import RunRecord

__all__ = [
    "Killed",
    "RecoveredRun",
    "RunIdentity",
    "RunKind",
    "RunRecord",
    "Scan",
    "StoredRun",
    "hash_config",
    "killed_on_sigterm",
    "mark_killed",
    "read_run",
    "read_runs",
    "recover_run",
    "run_folders",
    "scan",
]
