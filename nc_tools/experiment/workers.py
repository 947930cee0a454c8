"""Worker processes: several runs side by side, each worker loading the data once."""

from __future__ import annotations

import contextlib
import errno
import math
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from nc_tools._support.disk_full import is_disk_full
from nc_tools._support.signals import StopSignal
from nc_tools.experiment.job import Job, JobResult, Progress

_CONTEXT = multiprocessing.get_context("spawn")


def _serve(connection: Connection, threads: int) -> None:
    """Do jobs until the other end closes; runs in the worker."""
    import torch

    from nc_tools.experiment.run import run_job

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it, for every arm alike
    # A scheduler may send SIGTERM to the whole group and the parent then sends its own: neither may cut short the
    # writing of a checkpoint. Who cannot wait is the parent's business, which ends us with SIGKILL.
    with StopSignal(signals=(signal.SIGTERM,), patience=math.inf) as stop:

        def report(progress: Progress) -> None:
            try:
                connection.send(progress)
            except OSError:  # the parent is gone: end the run with its checkpoint
                stop.requested = True

        while True:
            try:
                job: Job = connection.recv()
            except (EOFError, OSError):
                return
            try:
                result = run_job(job, report, stop)
            except Exception as error:  # noqa: BLE001  one run's error must not end the others
                traceback.print_exc()
                told = f"{type(error).__name__}: {error}".splitlines()[0]
                result = JobResult(None, "FAILED", error=told, no_room=is_disk_full(error))
            with contextlib.suppress(OSError):
                connection.send(result)
            if stop.requested:
                return


@contextlib.contextmanager
def _library_threads(threads: int) -> Iterator[None]:
    """Have a new process start with so many threads in NumPy's and scikit-learn's libraries, unless the user has said.

    They read the variables when they are loaded, so it is too late inside the worker; left alone, the libraries of
    every worker take all cores and spin on each other.
    """
    ours = [name for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, str(threads)))
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    doing: int | None = None


class Workers:
    """A fixed number of processes that make runs; use it as a context manager.

    A worker that dies (out of memory, SIGKILL) costs its run, which is reported as KILLED; another worker takes its
    place and the other runs go on.

    Args:
        count: Processes, at least 1.
        threads: CPU threads of each.
    """

    def __init__(self, count: int, threads: int) -> None:
        if count < 1:
            raise ValueError(f"workers must be at least 1, got {count}")
        self._count = count
        self._threads = threads
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(10)
        self._workers.clear()

    def run(
        self,
        jobs: Sequence[Job],
        *,
        stop: StopSignal,
        on_progress: Callable[[Progress], None],
        on_result: Callable[[Job, JobResult], None],
    ) -> list[JobResult]:
        """Make all runs; return their results in the order of the jobs.

        When ``stop`` is set, runs in progress end as KILLED with a checkpoint, and those not begun are left as KILLED.
        So they are when a run finds no room to write: to go on would lose one run after the other.

        Raises:
            OSError: If there was no room, once all have ended.
        """
        no_room: str | None = None
        results: list[JobResult | None] = [None] * len(jobs)
        waiting = deque(range(len(jobs)))
        asked_to_stop = False
        while waiting or any(w.doing is not None for w in self._workers):
            if (stop.requested or no_room is not None) and not asked_to_stop:
                asked_to_stop = True
                waiting.clear()
                for worker in self._workers:
                    if worker.doing is not None and worker.process.pid is not None:
                        os.kill(worker.process.pid, signal.SIGTERM)
            self._hand_out(jobs, waiting)
            busy = [worker for worker in self._workers if worker.doing is not None]
            ready = wait([worker.connection for worker in busy], timeout=0.2)
            for worker in (worker for worker in busy if worker.connection in ready):
                index = worker.doing
                message = self._receive(worker)
                if isinstance(message, Progress):
                    on_progress(message)
                elif index is not None:
                    results[index] = message
                    on_result(jobs[index], message)
                    no_room = message.error if message.no_room else no_room
        if no_room is not None:
            raise OSError(errno.ENOSPC, no_room)
        return [r if r is not None else JobResult(None, "KILLED", error="not begun") for r in results]

    def _hand_out(self, jobs: Sequence[Job], waiting: deque[int]) -> None:
        while waiting:
            idle = next((w for w in self._workers if w.doing is None), None)
            if idle is None and len(self._workers) < self._count:
                idle = self._start()
            if idle is None:
                return
            try:
                idle.connection.send(jobs[waiting[0]])
            except OSError:  # it died while it had nothing to do; nothing is lost
                self._workers.remove(idle)
                continue
            idle.doing = waiting.popleft()

    def _start(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(theirs, self._threads), daemon=True)
        # The terminal sends Ctrl-C to the whole group; only the parent answers it, and asks the workers with SIGTERM.
        # An ignored signal stays ignored in a new process, from before its first line.
        with _sigint_ignored(), _library_threads(self._threads):
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _receive(self, worker: _Worker) -> Progress | JobResult:
        try:
            message: Progress | JobResult = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(10)
            self._workers.remove(worker)
            message = JobResult(None, "KILLED", error=f"its process died (exit code {worker.process.exitcode})")
        if isinstance(message, JobResult):
            worker.doing = None
        return message
