"""Make several runs of a comparison side by side in one process."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.disk_full import is_disk_full
from nc_tools._support.out_of_memory import is_out_of_memory
from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.job import Job, JobResult, Note, RunProgress
from nc_tools.experiment.pack_loaders import PackLoaders
from nc_tools.experiment.run_job import run_job
from nc_tools.training.run_side_by_side import run_side_by_side


@dataclass(frozen=True)
class PackJob:
    """Runs that one process makes at once; a single run is a pack of one.

    Attributes:
        jobs: The runs, of one kind.
    """

    jobs: tuple[Job, ...]

    @property
    def kind(self) -> str:
        """The kind of its runs."""
        return self.jobs[0].kind

    @property
    def label(self) -> str:
        """Name in progress lines: that of the run, or how many there are."""
        first = self.jobs[0].label
        return first if len(self.jobs) == 1 else f"{first} and {len(self.jobs) - 1} more"


@dataclass(frozen=True)
class RunPackResult(JobResult):
    """How a pack ended.

    Attributes:
        of_runs: The result of each run, in order; empty if the process died.
    """

    of_runs: tuple[JobResult, ...] = ()


def results_of(pack: PackJob, result: JobResult) -> Sequence[JobResult]:
    """Return the result of each run of a pack: that of the pack for all of them if its process died."""
    if isinstance(result, RunPackResult) and result.of_runs:
        return result.of_runs
    return [result] * len(pack.jobs)


def run_pack(pack: PackJob, on_progress: Callable[[RunProgress | Note], None], stop: StopSignal) -> RunPackResult:
    """Make the runs of a pack, and return how each of them ended. Their numbers are those of runs made one by one.

    If they do not fit into the memory together, those that did not end go on from their checkpoints in two halves.

    Args:
        pack: The runs. Those that were made before are not made again.
        on_progress: Called after each epoch of a run, and with the reasons why runs cannot share their passes.
        stop: When set, every run ends between two steps as KILLED, with a checkpoint.
    """
    loaders = PackLoaders(len(pack.jobs)) if len(pack.jobs) > 1 else None
    steps = [run_job.steps(job, on_progress, stop, loaders=loaders) for job in pack.jobs]

    def note(reason: str) -> None:
        if len(pack.jobs) > 1:
            on_progress(Note(f"some runs of a pack train alone, because {reason}"))

    ended = run_side_by_side(steps, on_alone=note)
    large = [number for number, end in enumerate(ended) if is_out_of_memory(end.error)]
    made: dict[int, JobResult] = {}
    if len(pack.jobs) > 1 and large:
        on_progress(Note(f"{len(pack.jobs)} runs side by side need too much memory: going on with half as many"))
        _release([end.error for end in ended if end.error is not None])
        half = -(-len(large) // 2)
        for part in filter(None, (large[:half], large[half:])):
            again = PackJob(tuple(replace(pack.jobs[number], resume=True) for number in part))
            made |= dict(zip(part, run_pack(again, on_progress, stop).of_runs, strict=True))
    results = tuple(
        made[number] if number in made else end.value if end.value is not None else error_result(end.error, job)
        for number, (end, job) in enumerate(zip(ended, pack.jobs, strict=True))
    )
    full = next((result for result in results if result.disk_full), None)
    if full is not None:
        return RunPackResult(None, "FAILED", error=full.error, disk_full=True, of_runs=results)
    return RunPackResult(None, "FINISHED", of_runs=results)


def _release(errors: Sequence[BaseException]) -> None:
    """Let go of the tensors in the frames of errors, and of the memory that PyTorch keeps of a GPU."""
    for error in errors:
        traceback.clear_frames(error.__traceback__)
    gc.collect()
    torch.cuda.empty_cache()


def error_result(error: BaseException | None, job: Job | None = None) -> JobResult:
    """Return the result of a run that raised an error, and print where it was raised."""
    if isinstance(error, Killed):
        return JobResult(None, "KILLED", error=error.reason)
    if job is not None and is_out_of_memory(error):
        size = job.config.training.batch_size
        advice = f"--set training.batch_size={size // 2}, which all arms then have" if size > 1 else "a smaller network"
        return JobResult(
            None, "FAILED", error=f"{job.device} has too little memory for batches of {size} images: use {advice}"
        )
    if error is not None and not isinstance(error, DamagedFileError | FileExistsError):  # their message says all
        traceback.print_exception(error)
    message = f"{type(error).__name__}: {error}".splitlines()[0]
    return JobResult(None, "FAILED", error=message, disk_full=error is not None and is_disk_full(error))
