"""Upload to MLflow the runs and values that it does not have yet.

This runs in a separate process (see ``sync_process``): importing MLflow takes over a second and 200 MB, and its time
limits can only be set for a whole process.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nc_tools.run_records.reader import StoredRun, mark_run_killed, scan
from nc_tools.tracking import comparison_run, send_run
from nc_tools.tracking.experiments import Experiments
from nc_tools.tracking.store import Store, StoreError, connect
from nc_tools.tracking.sync_report import SyncReport

LOCK_SECONDS = 10.0
RETRY_SECONDS = 0.3
MAX_FAILURES = 3
SHOWN_KINDS = ("final", "loop")


@dataclass
class Synchronizer:
    """Copies the runs in the output folder ``root`` to the MLflow store ``store``.

    Attributes:
        root: Output folder.
        store: The MLflow store.
        experiment: Name of the experiment for all records; None for each record's own.
    """

    root: Path
    store: Store
    experiment: str | None

    def __post_init__(self) -> None:
        self._experiments: Experiments | None = None

    def push(self, beat: Callable[[], None] = lambda: None, cpu_seconds: float = math.inf) -> SyncReport:
        """Upload what MLflow lacks, and return a report of errors instead of raising them.

        Args:
            beat: Called after each record, to show that there is progress.
            cpu_seconds: Processor time after which no further record is started; opening the store does not count.
        """
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.root / ".sync.lock", timeout=LOCK_SECONDS):
                return self._push(beat, cpu_seconds)
        except Timeout:
            return SyncReport(0, 0, f"another process is uploading the runs of {self.root} to MLflow")
        except StoreError as error:
            return SyncReport(0, len(self._missing()), str(error))
        except Exception as error:  # noqa: BLE001 - an error here must never stop the training
            return SyncReport(0, len(self._missing()), self.store.explain(error))

    def _missing(self) -> list[StoredRun]:
        return [run for run in _shown(scan(self.root).runs) if not send_run.is_there(run, self.store.key)]

    def _push(self, beat: Callable[[], None], cpu_seconds: float) -> SyncReport:
        scanned = scan(self.root)
        runs = [mark_run_killed(run) or run for run in _shown(scanned.runs)]
        experiments = self._experiments
        # The first push checks everything: the store may have been emptied since the records were sent.
        todo = runs if experiments is None else [run for run in runs if not send_run.is_there(run, self.store.key)]
        staged = comparison_run.staged(self.root, self.store.key, self.experiment)
        broken = [f"the run {name} cannot be read: {reason}" for name, reason in scanned.broken.items()]
        if not todo and staged is None:
            return SyncReport(0, 0, broken[0] if broken else None)
        problem = self.store.unreachable()
        if problem is not None:
            return SyncReport(0, len(self._missing()), problem)
        if experiments is None:
            experiments = Experiments(connect(self.store), self.store, self.root)
            names = [self._name(run) for run in runs]
            experiments.remember([*names, staged.content["experiment"]] if staged is not None else names)
            # Assigned only now: with half of the runs read, a later push would create the other half again.
            self._experiments = experiments
        failures = list(broken)
        count = 0
        end = time.process_time() + cpu_seconds
        jobs: list[tuple[str, Callable[[], bool]]] = [
            (f"the run {run.path.name}", partial(send_run.send, run, self._name(run), experiments)) for run in todo
        ]
        if staged is not None:
            jobs.append(("the comparison", partial(staged.send, experiments)))
        for position, (name, job) in enumerate(jobs):
            if time.process_time() > end:
                return SyncReport(count, len(jobs) - position, None)
            try:
                count += self._with_retry(job)
            except StoreError as error:
                return SyncReport(count, len(jobs) - position, str(error))
            except Exception as error:  # noqa: BLE001 - one rejected record must not keep the others from being sent
                failures.append(f"{name} could not be uploaded: {self.store.explain(error)}")
                if len(failures) - len(broken) >= MAX_FAILURES:
                    return SyncReport(count, len(jobs) - position, failures[0])
            beat()
        return SyncReport(count, len(failures) - len(broken), failures[0] if failures else None)

    def _name(self, run: StoredRun) -> str:
        return self.experiment or run.identity.experiment

    def _with_retry(self, job: Callable[[], bool]) -> bool:
        """Run ``job``, an upload, and run it once more if it fails although the store still answers."""
        try:
            return job()
        except Exception as error:
            problem = self.store.unreachable()
            if problem is not None:
                raise StoreError(problem) from error
            time.sleep(RETRY_SECONDS)
        try:
            return job()
        except Exception as error:
            problem = self.store.unreachable()
            if problem is not None:
                raise StoreError(problem) from error
            raise


def _shown(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return the runs that are uploaded to MLflow: final runs and those of users' own training loops.

    The results of tuning and hold-out runs are in tuning.json, which is sent with the comparison, and in the hold-out
    curves of the final runs.
    """
    return [run for run in runs if run.identity.kind in SHOWN_KINDS]
