"""Copy an output folder to an MLflow store: send what the store does not have yet.

This runs in a process of its own (see ``sync_process``): importing MLflow takes over a second and 200 MB.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient

from nc_tools.run_records.reader import mark_run_killed, read_run, run_folders
from nc_tools.tracking.connection import connect
from nc_tools.tracking.run_items import COMPARISON, RunItem, comparison_item, files_hash, run_files, run_item
from nc_tools.tracking.runs_in_store import FolderRuns, experiment_id
from nc_tools.tracking.send_item import send_item
from nc_tools.tracking.store import Store, name_in_mlflow
from nc_tools.tracking.sync_report import SyncReport

FOLDER_LOCK_SECONDS = 30.0
SHOWN_KINDS = ("final", "loop")
UNFINISHED = "the upload to MLflow did not end in time"


class Mirror:
    """Copies an output folder to an MLflow store; each push sends what is new.

    A tag of each run in MLflow notes what the store already has of it, and each push reads that tag. So a push may end
    at any moment, and several processes may send the same folder.

    Args:
        root: Output folder.
        store: The MLflow store.

    Attributes:
        report: State of the push in progress, or result of the last one.
    """

    def __init__(self, root: Path, store: Store) -> None:
        self.root = root
        self.store = store
        self.report = SyncReport(0, 0, None)
        self._client: MlflowClient | None = None
        self._complete: dict[str, str] = {}  # name of an item: hash of its files when the store had all of it
        self._doubtful: set[str] = set()  # items with a failed request, which the server may still carry out

    def push(self, say: Callable[[SyncReport], None] = lambda _: None) -> SyncReport:
        """Send what MLflow lacks; return a report of errors instead of raising them.

        Args:
            say: Called with the state of the push before each item and each large request, to show that there is
                progress.
        """
        self.report = SyncReport(0, 0, None, self.report.pages)
        try:
            with FileLock(self.root / ".sync.lock", timeout=FOLDER_LOCK_SECONDS):
                problems = self._push(say)
        except Timeout:
            problems = [f"another process is uploading the runs of {self.root} to MLflow"]
        except Exception as error:  # noqa: BLE001 - an error here must never stop the training
            problems = [self.store.explain(error)]
        self.report = replace(self.report, error=problems[0] if problems else None)
        return self.report

    def state(self) -> SyncReport:
        """Return a report of the push in progress that counts every run as missing that may be missing."""
        return SyncReport(self.report.sent, sum(1 for _ in self._new_items([])), UNFINISHED)

    def _push(self, say: Callable[[SyncReport], None]) -> list[str]:
        """Send what MLflow lacks; return why an item was not sent."""
        problems: list[str] = []
        todo = list(self._new_items(problems))
        self.report = replace(self.report, pending=len(todo), error=UNFINISHED)
        say(self.report)
        if not todo:
            if self._complete and self._client is None and self.store.database is not None:
                # Runs that MLflow does not show have begun; others will follow. MLflow takes seconds to make the file.
                self._client = connect(self.store)
            return problems
        client = self._client = self._client or connect(self.store)
        names = dict.fromkeys(item.experiment for item, _ in todo)
        ids = {name: experiment_id(client, self.store, self.root, name) for name in names}
        shown = {name: FolderRuns(client, ids[name], name_in_mlflow(self.root)) for name in names}
        for item, state in todo:
            say(self.report)
            try:
                run = shown[item.experiment].claim(item)
                sent = run is not None and send_item(client, run, item, lambda: say(self.report))
            except Exception as error:
                self._doubtful.add(item.name)
                if self.store.unavailable(error) is not None:
                    raise
                problems.append(f"{item.name} could not be uploaded: {self.store.explain(error)}")
                continue
            if item.status != "RUNNING" and item.name not in self._doubtful:
                self._complete[item.name] = state
            self.report = replace(self.report, sent=self.report.sent + sent, pending=self.report.pending - 1)
        for runs in shown.values():
            runs.link_to_comparison()
            self.report = replace(self.report, pages=list(dict.fromkeys([*self.report.pages, *runs.pages()])))
        return problems

    def _new_items(self, problems: list[str]) -> Iterator[tuple[RunItem, str]]:
        """Yield the items that the store may not have completely, each with a hash of its files."""
        for path in run_folders(self.root):
            written = {name: path / name for name in ("status.json", "metrics.jsonl")}
            state = files_hash(written | run_files(path))
            if self._complete.get(path.name) == state:
                continue
            try:
                run = read_run(path)
                run = mark_run_killed(run) or run
            except (OSError, ValueError) as error:
                problems.append(f"the run {path.name} cannot be read: {error}")
                continue
            if run.identity.kind in SHOWN_KINDS:
                yield run_item(run), state
            else:
                self._complete[path.name] = state
        comparison = comparison_item(self.root)
        if comparison is not None and self._complete.get(COMPARISON) != (state := files_hash(comparison.files)):
            yield comparison, state
