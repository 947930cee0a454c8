"""Copy the runs of an output folder to an MLflow store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nc_tools.tracking import comparison_run
from nc_tools.tracking.live import LiveSync
from nc_tools.tracking.store import resolve_store
from nc_tools.tracking.sync_report import SyncReport


class MlflowSync:
    """Copies the runs of an output folder to an MLflow store, which is a server or a database.

    Each push sends only what is missing, so it can be repeated. If the store cannot be reached, the push returns a
    report and raises no exception. Each record becomes one run that is not nested: MLflow's chart page does not show
    nested runs.

    Args:
        root: Output folder with the records.
        tracking_uri: Address of the store. The default is MLFLOW_TRACKING_URI, and if that is not set, a SQLite file in
            the output folder.
        experiment: Name of the experiment for all records. The default is each record's own.

    Raises:
        ValueError: If the address is a folder: MLflow no longer writes to folders.
    """

    def __init__(self, root: Path | str, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        self.root = Path(root).resolve()
        self.store = resolve_store(self.root, tracking_uri)
        self.experiment = experiment

    def push(self) -> SyncReport:
        """Upload what MLflow lacks, in a separate process, and wait for it; the report says what failed.

        Raises:
            FileNotFoundError: If the output folder does not exist.
        """
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"the output folder {self.root} does not exist: give the folder that was the recipe's --out"
            )
        live = LiveSync(self, every=None)
        live.start()
        return live.stop()

    def stage_comparison(
        self, report_dir: Path | str, summary: Mapping[str, Any], table_rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Save a comparison, so that the next push uploads it, such as the last push of an enclosing ``LiveSync``.

        Args:
            report_dir: Folder with comparison.html, .md, .csv and .json; the files that exist are sent.
            summary: Nested mapping. Its numbers become metrics; "suite" and "experiment" name the run and experiment.
            table_rows: One mapping of column to value for each row.
        """
        comparison_run.stage(self.root, Path(report_dir), summary, table_rows)

    def push_comparison(
        self, report_dir: Path | str, summary: Mapping[str, Any], table_rows: Sequence[Mapping[str, Any]]
    ) -> SyncReport:
        """Upload a comparison as an MLflow run, with the arguments of ``stage_comparison``; update an earlier one."""
        self.stage_comparison(report_dir, summary, table_rows)
        return self.push()
