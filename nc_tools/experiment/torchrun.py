"""Processes that torchrun has started: the first makes the runs of a comparison, and the others train with it."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from nc_tools._support.available_cores import available_cores
from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.job import JobResult, Note, RunProgress
from nc_tools.experiment.run_job import run_job, train_with_first
from nc_tools.experiment.run_pack import PackJob, error_result
from nc_tools.experiment.shared_training import announce, next_training
from nc_tools.experiment.workers import set_arithmetic
from nc_tools.training.processes import LostProcess, Processes


def started_processes() -> int:
    """Return how many processes torchrun has started, this one included; 1 if this one was started otherwise."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_follower() -> bool:
    """Whether torchrun has started this process and others, and it is not the first of them."""
    return started_processes() > 1 and os.environ["RANK"] != "0"


def threads_here() -> int:
    """Return the CPU threads of each process: the processes of a machine share its cores."""
    return max(1, available_cores() // int(os.environ["LOCAL_WORLD_SIZE"]))


def device_here(device: str) -> str:
    """Return the device of this process: the GPU with its number on this machine, or the CPU.

    Raises:
        ValueError: If this machine has fewer GPUs than processes.
    """
    if torch.device(device).type == "cpu":
        return device
    number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= count:
        raise ValueError(
            f"each process of torchrun has a GPU of its own, but there are {os.environ['LOCAL_WORLD_SIZE']} processes "
            f"on this machine and {count} GPU{'s' * (count != 1)}: start fewer processes, or give --device cpu"
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


@contextlib.contextmanager
def first_of_torchrun(args: argparse.Namespace) -> Iterator[Processes | None]:
    """Connect the first process of torchrun to the others, and let them end after the ``with`` block.

    If the block raises an error, the others end when they notice that this process has ended. One process, or one that
    was started without torchrun, yields None.

    Args:
        args: The flags of the recipe.

    Raises:
        ValueError: If a flag is for a start without torchrun.
    """
    if started_processes() == 1:
        yield None
        return
    _check_flags(args)
    processes = _connected()
    yield processes
    with contextlib.suppress(LostProcess):  # all runs are made
        announce(processes, None)


def _check_flags(args: argparse.Namespace) -> None:
    """Check that no flag contradicts torchrun, whose processes train one run at a time."""
    contradictions = {
        f"--workers {args.workers}": args.workers not in (None, 1),
        f"--pack {args.pack}": args.pack not in ("auto", "1"),
        f"--cluster {args.cluster}": args.cluster is not None,
        "--plan": args.plan,
        f"--device {args.device}": args.device.startswith("cuda:"),
    }
    for flag, contradicts in contradictions.items():
        if contradicts:
            raise ValueError(
                f"the {started_processes()} processes of torchrun train one run at a time, each on a device of its "
                f"own, got {flag}: leave it out, or start the recipe with python"
            )


def _connected() -> Processes:
    from torch.distributed.rendezvous import rendezvous  # some builds of PyTorch have none

    store, rank, size = next(rendezvous("env://"))
    return Processes(store, rank, size)


def follow(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Train with the first process of torchrun until it has made all runs. Only the first process prints.

    A signal stops the run in all processes, with a checkpoint of the first.

    Args:
        parser: The parser of the recipe's flags.
        argv: The flags; None for those of this process.
    """
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        args = parser.parse_args(argv)
    if args.print_config:
        return
    set_arithmetic(threads_here())
    with StopSignal(patience=math.inf) as stop:
        try:
            _train_with_first(stop)
        except LostProcess:
            sys.exit(1)
        except (ValueError, TypeError, OSError) as error:
            sys.exit(f"error in process {os.environ['RANK']} of torchrun: {error}")


def _train_with_first(stop: StopSignal) -> None:
    processes = _connected()
    while (training := next_training(processes)) is not None:
        job = replace(training.job, device=device_here(training.job.device))
        try:
            train_with_first(training._replace(job=job), processes, stop)
        except LostProcess:
            raise
        except Killed:  # this training has ended in all processes, and the first may begin another
            continue


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
            on_result(pack, result)
            if result.disk_full:
                raise OSError(errno.ENOSPC, result.error)
            if result.unexpected:
                raise ValueError(f"{job.label} ({job.kind}) failed: {result.error}")
            if stop.requested:
                raise Killed("stopped")
            results.append(result)
        return results
