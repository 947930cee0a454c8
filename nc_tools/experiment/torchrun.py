"""The processes that torchrun has started: how many, which device and threads each has, and how they connect."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator

import torch

from nc_tools._support.available_cores import available_cores
from nc_tools.experiment.shared_training import announce
from nc_tools.training import Processes
from nc_tools.training.processes import LostProcess


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
    processes = connected_processes()
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


def connected_processes() -> Processes:
    """Connect this process to the others that torchrun has started, and return them all."""
    from torch.distributed.rendezvous import rendezvous  # some builds of PyTorch have none

    store, rank, size = next(rendezvous("env://"))
    return Processes(store, rank, size)
