"""Make the runs of a comparison one after the other, each in all processes of torchrun."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.job import JobResult, Note, RunProgress
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.run_job import run_job
from nc_tools.experiment.run_pack import PackJob, error_result
from nc_tools.experiment.workers import set_arithmetic
from nc_tools.training import Processes


def check_divisible(arms: Mapping[str, RunConfig], size: int) -> None:
    """Check that the batches of all arms can be divided among processes.

    Raises:
        ValueError: If an arm's backbone is compiled, or its batches are too small.
    """
    for name, config in arms.items():
        training = config.training
        if training.compile:
            raise ValueError(
                f"arm {name}: training.compile=true, but {size} processes cannot divide the batches of a compiled "
                f"backbone: set it to false"
            )
        if training.batch_size < 2 * size:  # the batches of an epoch may have half of this size
            raise ValueError(
                f"arm {name}: training.batch_size={training.batch_size} is too small for {size} processes, which each "
                f"need a part of every batch: set it to {2 * size} or more, or start fewer processes"
            )


class DividedRuns:
    """Makes runs one after the other, each in all processes of torchrun; used as a context manager.

    An error of a run ends the comparison, because the processes may then be at different steps.

    Args:
        processes: The processes, of which this is the first.
        threads: CPU threads of each.
    """

    def __init__(self, processes: Processes, threads: int) -> None:
        self._processes = processes
        self._threads = threads

    def __enter__(self) -> DividedRuns:
        set_arithmetic(self._threads)
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the processes are used again."""

    def run(
        self,
        jobs: Sequence[PackJob],
        *,
        stop: StopSignal,
        on_progress: Callable[[RunProgress | Note], None],
        on_result: Callable[[PackJob, JobResult], None],
    ) -> list[JobResult]:
        """Make the runs, and return their results in their order.

        Raises:
            ValueError: If a run has failed otherwise than by divergence.
            OSError: If the disk was full.
            Killed: If ``stop`` was set, or another process has ended.
        """
        results = []
        for pack in jobs:
            [job] = pack.jobs
            try:
                result = run_job(job, on_progress, stop, processes=self._processes)
            except Exception as error:  # noqa: BLE001  it ends the comparison, with its reason
                result = error_result(error)
            if result.status == "KILLED":
                on_progress(Note(f"{job.label} ({job.kind}) killed: {result.error}"))
                raise Killed(result.error or "stopped")
            if result.disk_full:
                raise OSError(errno.ENOSPC, result.error)
            if result.unexpected:
                raise ValueError(f"{job.label} ({job.kind}) failed: {result.error}")
            on_result(pack, result)
            if stop.requested:
                raise Killed("stopped")
            results.append(result)
        return results
