"""The part of a comparison on a cluster that runs on a node: make a pack of runs, and return their files."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from nc_tools._support.signals import StopSignal
from nc_tools.experiment.job import Job, Note, RunProgress
from nc_tools.experiment.run_job import open_job
from nc_tools.experiment.run_pack import PackJob, RunPackResult, error_result, run_pack
from nc_tools.experiment.workers import set_arithmetic
from nc_tools.run_records.liveness import host
from nc_tools.run_records.run_files import read_run_files, write_run_files

_NEWS_SECONDS = 1.0  # time between two messages of a task


@dataclass(frozen=True)
class Origin:
    """What a node's process takes over from the one that started the comparison, so that its runs do not differ.

    Attributes:
        folder: Its working folder, from which relative paths are read.
        argv: Its command line, for the records.
        script: File of its main module, by which classes of the script are named in records; None in a notebook.
        module: Name of its main module if it was started with ``python -m``.
    """

    folder: str
    argv: tuple[str, ...]
    script: str | None
    module: str | None

    @classmethod
    def here(cls) -> Origin:
        """Return the values of this process."""
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        return cls(str(Path.cwd()), tuple(sys.argv), getattr(main, "__file__", None), spec.name if spec else None)

    def take(self) -> None:
        """Give these values to this process, which makes tasks of this comparison only."""
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        sys.argv = list(self.argv)
        main: Any = sys.modules["__main__"]
        if self.script is not None:
            main.__file__ = self.script
        elif hasattr(main, "__file__"):
            del main.__file__  # not set to None: inspect, which torch uses, would take main for a built-in module
        main.__spec__ = None if self.module is None else importlib.machinery.ModuleSpec(self.module, None)


@dataclass(frozen=True, kw_only=True)
class NodeTask:
    """What a node needs to make a pack of runs.

    Attributes:
        pack: The runs. None of them was finished before.
        run_ids: The name of each run's folder on the machine that sends the task.
        files: Run id -> path -> content, for hold-out runs that are read and runs that are continued.
        threads: Number of CPU threads.
        origin: The process that sends the task.
    """

    pack: PackJob
    run_ids: tuple[str, ...]
    files: Mapping[str, Mapping[str, bytes]]
    threads: int
    origin: Origin


@dataclass(frozen=True)
class NodeResult:
    """What a node returns.

    Attributes:
        result: How the pack ended; the folders that it names do not exist any more.
        files: Run id -> path -> content, for every run of the pack that began.
        problem: Why no run of the comparison can be made on this node; None if it can.
    """

    result: RunPackResult
    files: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    problem: str | None = None


def make_on_node(task: NodeTask, mailbox: Any) -> NodeResult:
    """Make the runs of a task in a folder of their own, and return how they ended and what they wrote.

    Args:
        task: The runs.
        mailbox: The actor that gets their progress.
    """
    task.origin.take()
    set_arithmetic(task.threads)
    with tempfile.TemporaryDirectory(prefix="nc_tools-") as folder, _Reports(mailbox, task) as reports:
        runs = Path(folder) / "runs"
        for name, files in task.files.items():
            write_run_files(runs / name, files)
        pack = PackJob(tuple(_moved(job, Path(folder)) for job in task.pack.jobs))
        problem = _problem(pack, task.run_ids)
        if problem is not None:
            return NodeResult(RunPackResult(None, "FAILED", error=problem), problem=problem)
        try:
            result = run_pack(pack, reports.add, reports.stop)
        except Exception as error:  # noqa: BLE001  one pack's error must not end the others
            failed = error_result(error)
            result = RunPackResult(None, failed.status, error=failed.error, disk_full=failed.disk_full)
        written = {name: read_run_files(runs / name) for name in task.run_ids if (runs / name).exists()}
    return NodeResult(result, written)


def _moved(job: Job, root: Path) -> Job:
    """Return a job that writes to another folder; the folder of decoded images stays the same as without a cluster."""
    holdout = None if job.holdout_run is None else root / "runs" / job.holdout_run.name
    return replace(job, root=root, cache=job.root / "cache", holdout_run=holdout)


def _problem(pack: PackJob, run_ids: tuple[str, ...]) -> str | None:
    """Return why runs on this node would differ from those of the comparison; None if they would not."""
    for job, run_id in zip(pack.jobs, run_ids, strict=True):
        try:
            identity = open_job(job).identity
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            return (
                f"the node {host()} cannot read what arm {job.arm} needs: {reason} (put data and weights at the same "
                f"path on every node, such as on a shared disk, and give the command again)"
            )
        if identity.run_id != run_id:
            return (
                f"the node {host()} has other data, weights or code for arm {job.arm} than this machine (its run would "
                f"be {identity.run_id}, and here it is {run_id}): put the same files at the same path on every node, "
                f"and install the same nc_tools"
            )
    return None


class _Reports:
    """A thread that leaves progress in the mailbox, and sets ``stop`` when the comparison is stopped or gone."""

    def __init__(self, mailbox: Any, task: NodeTask) -> None:
        self.stop = StopSignal(signals=())
        self._mailbox = mailbox
        self._task = task
        self._progress: RunProgress | None = None
        self._notes: list[Note] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)

    def add(self, message: RunProgress | Note) -> None:
        """Keep a note, or the latest progress, until the next message is sent."""
        if isinstance(message, Note):
            self._notes.append(message)
        else:
            self._progress = message

    def __enter__(self) -> _Reports:
        again = f"{self._task.pack.label}: made again, because a node or its process was lost"
        self._ask(self._mailbox.begin.remote(self._task.run_ids[0], again))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._send()

    def _talk(self) -> None:
        while not self._ended.wait(_NEWS_SECONDS):
            self._send()

    def _send(self) -> None:
        notes, self._notes = self._notes, []
        progress, self._progress = self._progress, None
        messages = [*(note.text for note in notes), *([] if progress is None else [astuple(progress)])]
        self._ask(self._mailbox.leave.remote(messages))

    def _ask(self, answer: Any) -> None:
        import ray

        try:
            self.stop.requested |= ray.get(answer)
        except ray.exceptions.RayError:  # the process that started the comparison has ended
            self.stop.requested = True
