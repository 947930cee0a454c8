"""MLflow as a view of the records: what goes where, and sending it now."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nc_tools.tracking import comparison_run
from nc_tools.tracking.live import LiveSync
from nc_tools.tracking.store import resolve_store
from nc_tools.tracking.sync_report import SyncReport


class MlflowSync:
    """Mirrors the records of an output folder into an MLflow store, as often as one likes.

    Only what is missing is sent, nothing twice, and an unreachable store costs a report, not an exception.
    Records become flat runs, one each: nested runs leave MLflow's chart page empty.

    Args:
        root: Output folder with the records.
        tracking_uri: Address of the store. Without one MLFLOW_TRACKING_URI is taken, and without that a
            SQLite store in the output folder itself.
        experiment: Name of the experiment for all records; without one each record's own.

    Raises:
        ValueError: If the address is a plain folder, which MLflow no longer writes to.
    """

    def __init__(self, root: Path | str, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        self.root = Path(root).resolve()
        self.store = resolve_store(self.root, tracking_uri)
        self.experiment = experiment

    def push(self) -> SyncReport:
        """Send what is missing, in a process of its own, and wait; a failure is reported, not raised.

        Raises:
            FileNotFoundError: If the output folder is not there.
        """
        if not self.root.is_dir():
            raise FileNotFoundError(f"the output folder must exist to be sent, and {self.root} does not")
        live = LiveSync(self, every=None)
        live.start()
        return live.stop()

    def stage_comparison(
        self, report_dir: Path | str, summary: Mapping[str, Any], table_rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Have the next push send this comparison (such as the last one of a ``LiveSync`` around it).

        Args:
            report_dir: Folder with comparison.html, .md, .csv and .json; those that exist are sent.
            summary: Nested; its numbers become metrics, "suite" and "experiment" say where it belongs.
            table_rows: One mapping of column to value a row.
        """
        comparison_run.stage(self.root, Path(report_dir), summary, table_rows)

    def push_comparison(
        self, report_dir: Path | str, summary: Mapping[str, Any], table_rows: Sequence[Mapping[str, Any]]
    ) -> SyncReport:
        """Send the comparison as one more run, in place of this suite's last; for Args see the stage."""
        self.stage_comparison(report_dir, summary, table_rows)
        return self.push()
