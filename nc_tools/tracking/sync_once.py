"""Sending records to MLflow: incremental, repeatable, and without an effect on what is already there.

Runs in a process of its own (see ``sender``), since importing MLflow takes over a second and 200 MB, and its
waiting times can only be set for a whole process.
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
    """Mirrors the records under ``root`` into ``store``.

    Attributes:
        root: Output folder.
        store: Where to.
        experiment: Name of the experiment; None takes each record's own.
    """

    root: Path
    store: Store
    experiment: str | None

    def __post_init__(self) -> None:
        self._experiments: Experiments | None = None

    def push(self, beat: Callable[[], None] = lambda: None, cpu_seconds: float = math.inf) -> SyncReport:
        """Send what is missing; never raises.

        Args:
            beat: Called after each record, to show that there is progress.
            cpu_seconds: Begin no further record once so much processor time is spent, opening the store aside.
        """
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.root / ".sync.lock", timeout=LOCK_SECONDS):
                return self._push(beat, cpu_seconds)
        except Timeout:
            return SyncReport(0, 0, f"another process is sending the runs of {self.root}")
        except StoreError as error:
            return SyncReport(0, len(self._missing()), str(error))
        except Exception as error:  # noqa: BLE001 - a view must never bring the training down
            return SyncReport(0, len(self._missing()), self.store.explain(error))

    def _missing(self) -> list[StoredRun]:
        return [run for run in _shown(scan(self.root).runs) if not send_run.is_there(run, self.store.key)]

    def _push(self, beat: Callable[[], None], cpu_seconds: float) -> SyncReport:
        found = scan(self.root)
        runs = [mark_run_killed(run) or run for run in _shown(found.runs)]
        known = self._experiments
        # The first push looks at everything: the store may have been emptied since the records were sent.
        todo = runs if known is None else [run for run in runs if not send_run.is_there(run, self.store.key)]
        staged = comparison_run.staged(self.root, self.store.key, self.experiment)
        broken = [f"the run {name} cannot be read: {reason}" for name, reason in found.broken.items()]
        if not todo and staged is None:
            return SyncReport(0, 0, broken[0] if broken else None)
        silent = self.store.unreachable()
        if silent is not None:
            return SyncReport(0, len(self._missing()), silent)
        if known is None:
            known = Experiments(connect(self.store), self.store, self.root)
            names = [self._name(run) for run in runs]
            known.remember([*names, staged.content["experiment"]] if staged is not None else names)
            # Kept only now: one that knows half of the runs would create the other half again.
            self._experiments = known
        failures = list(broken)
        count = 0
        end = time.process_time() + cpu_seconds
        jobs: list[tuple[str, Callable[[], bool]]] = [
            (f"the run {run.path.name}", partial(send_run.send, run, self._name(run), known)) for run in todo
        ]
        if staged is not None:
            jobs.append(("the comparison", partial(staged.send, known)))
        for position, (name, job) in enumerate(jobs):
            if time.process_time() > end:
                return SyncReport(count, len(jobs) - position, None)
            try:
                count += self._twice(job)
            except StoreError as error:
                return SyncReport(count, len(jobs) - position, str(error))
            except Exception as error:  # noqa: BLE001 - one refused record must not hold up the others
                failures.append(f"{name} was refused: {self.store.explain(error)}")
                if len(failures) - len(broken) >= MAX_FAILURES:
                    return SyncReport(count, len(jobs) - position, failures[0])
            beat()
        return SyncReport(count, len(failures) - len(broken), failures[0] if failures else None)

    def _name(self, run: StoredRun) -> str:
        return self.experiment or run.identity.experiment

    def _twice(self, job: Callable[[], bool]) -> bool:
        """Run ``job``, once more if it fails while the store still answers."""
        try:
            return job()
        except Exception as error:
            silent = self.store.unreachable()
            if silent is not None:
                raise StoreError(silent) from error
            time.sleep(RETRY_SECONDS)
        try:
            return job()
        except Exception as error:
            silent = self.store.unreachable()
            if silent is not None:
                raise StoreError(silent) from error
            raise


def _shown(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Runs that a person wants to see side by side; trials and hold-out runs only serve to choose.

    What they gave is in tuning.json, which goes with the comparison, and in the final runs' hold-out curves.
    """
    return [run for run in runs if run.identity.kind in SHOWN_KINDS]
