"""Worker processes that make training runs in parallel; each process loads the data once."""

from __future__ import annotations

import contextlib
import errno
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol, TypeVar

from nc_tools._support.signals import StopSignal
from nc_tools.experiment.job import JobResult, Note, RunProgress

_CONTEXT = multiprocessing.get_context("spawn")


MakeRun = Callable[[Any, Callable[[RunProgress | Note], None], StopSignal], JobResult]
"""A function of a module that makes what a job describes, such as ``run_pack``."""


class WorkerJob(Protocol):
    """A job for a worker process: to make several runs side by side, or all runs of some seeds."""

    @property
    def label(self) -> str:
        """Name of the job in progress lines."""

    @property
    def kind(self) -> str:
        """What is made, in one word."""


J = TypeVar("J", bound=WorkerJob)


def set_arithmetic(threads: int) -> None:
    """Set the threads and the float32 products of PyTorch, in a process that makes runs."""
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it, for every arm alike


def _serve(connection: Connection, threads: int, make_run: MakeRun | None) -> None:
    """Main function of a worker process: make runs until the parent process closes the connection."""
    from nc_tools.experiment.run_pack import error_result, run_pack

    make_run = make_run or run_pack
    set_arithmetic(threads)
    # A scheduler may send SIGTERM to the whole process group, and the parent then sends its own: neither may interrupt
    # the writing of a checkpoint. A worker that takes too long is ended by the parent, with SIGKILL.
    with StopSignal(signals=(signal.SIGTERM,), patience=math.inf) as stop:

        def send_progress(progress: RunProgress | Note) -> None:
            try:
                connection.send(progress)
            except OSError:  # the parent has ended: stop the run with a checkpoint
                stop.requested = True

        while True:
            try:
                job = connection.recv()
            except (EOFError, OSError):
                return
            try:
                result = make_run(job, send_progress, stop)
            except Exception as error:  # noqa: BLE001  one run's error must not end the others
                result = error_result(error)
            with contextlib.suppress(OSError):
                connection.send(result)
            if stop.requested:
                return


@contextlib.contextmanager
def _library_threads(threads: int) -> Iterator[None]:
    """Limit the threads of NumPy and scikit-learn in processes that are started inside the ``with`` block.

    The libraries read these variables when they are loaded, so setting them inside the worker is too late. Without a
    limit, the libraries of every worker use all cores and slow each other down. A limit that the user set is kept.
    """
    unset = [name for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ]
    os.environ.update(dict.fromkeys(unset, str(threads)))
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    job: int | None = None  # position of the job in progress


class Workers:
    """A fixed number of worker processes that make training runs; used as a context manager.

    If a worker dies (out of memory, SIGKILL), its run is reported as KILLED, another worker replaces it, and the other
    runs continue.

    Args:
        count: Processes, at least 1.
        threads: CPU threads of each.
        make_run: What each of them does with a job; None for ``run_pack``.

    Raises:
        ValueError: If ``count`` is less than 1.
    """

    def __init__(self, count: int, threads: int, make_run: MakeRun | None = None) -> None:
        if count < 1:
            raise ValueError(f"workers must be at least 1, got {count}")
        self._count = count
        self._threads = threads
        self._make_run = make_run
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
        jobs: Sequence[J],
        *,
        stop: StopSignal,
        on_progress: Callable[[RunProgress | Note], None],
        on_result: Callable[[J, JobResult], None],
    ) -> list[JobResult]:
        """Make the run of every job, and return the results in the order of the jobs.

        When ``stop`` is set, runs in progress end as KILLED with a checkpoint, and runs that have not begun are
        reported as KILLED. The same happens when a run finds the disk full, since all others would fail too.

        Raises:
            OSError: If the disk was full, after all runs have ended.
        """
        full_disk: str | None = None
        results: list[JobResult | None] = [None] * len(jobs)
        waiting = deque(range(len(jobs)))
        stopping = False
        while waiting or any(w.job is not None for w in self._workers):
            if (stop.requested or full_disk is not None) and not stopping:
                stopping = True
                waiting.clear()
                for worker in self._workers:
                    if worker.job is not None and worker.process.pid is not None:
                        os.kill(worker.process.pid, signal.SIGTERM)
            self._hand_out(jobs, waiting)
            busy = [worker for worker in self._workers if worker.job is not None]
            ready = wait([worker.connection for worker in busy], timeout=0.2)
            for worker in (worker for worker in busy if worker.connection in ready):
                index = worker.job
                message = self._receive(worker)
                if isinstance(message, RunProgress | Note):
                    on_progress(message)
                elif index is not None:
                    results[index] = message
                    on_result(jobs[index], message)
                    full_disk = message.error if message.disk_full else full_disk
        if full_disk is not None:
            raise OSError(errno.ENOSPC, full_disk)
        return [r if r is not None else JobResult(None, "KILLED", error="not begun") for r in results]

    def _hand_out(self, jobs: Sequence[WorkerJob], waiting: deque[int]) -> None:
        while waiting:
            idle = next((w for w in self._workers if w.job is None), None)
            if idle is None and len(self._workers) < self._count:
                idle = self._start()
            if idle is None:
                return
            try:
                idle.connection.send(jobs[waiting[0]])
            except OSError:  # it died while it was idle: no run is lost
                self._workers.remove(idle)
                continue
            idle.job = waiting.popleft()

    def _start(self) -> _Worker:
        connection, worker_end = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(worker_end, self._threads, self._make_run), daemon=True)
        # A terminal sends Ctrl-C to the whole process group. Only the parent handles it, and stops the workers with
        # SIGTERM. A new process inherits that the signal is ignored, before its first line of Python.
        with _sigint_ignored(), _library_threads(self._threads):
            process.start()
        worker_end.close()
        worker = _Worker(process, connection)
        self._workers.append(worker)
        return worker

    def _receive(self, worker: _Worker) -> RunProgress | Note | JobResult:
        try:
            message: RunProgress | Note | JobResult = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(10)
            self._workers.remove(worker)
            message = JobResult(None, "KILLED", error=f"its process died (exit code {worker.process.exitcode})")
        if isinstance(message, JobResult):
            worker.job = None
        return message
