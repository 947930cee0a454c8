"""Two processes in a process group, forked from a server that has imported torch once for all tests of a process."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Their import takes several seconds, which each process would spend anew.
IMPORTED = ["torch.distributed.fsdp", "torch.distributed.tensor.parallel", "nc_tools.losses", "nc_tools.surgery"]
SECONDS = 180.0


def in_two_processes(work: Callable[..., object], *given: Any) -> None:
    """Call ``work(rank, *given)`` in each of two processes of a group.

    An error in one of them is raised here, and a test fails if they wait for each other.
    """
    multiprocessing.set_forkserver_preload(IMPORTED)
    with tempfile.TemporaryDirectory() as folder:
        context = mp.start_processes(  # type: ignore[no-untyped-call]
            _in_group, (f"file://{folder}/meet", work, given), nprocs=2, join=False, start_method="forkserver"
        )
        end = time.monotonic() + SECONDS
        while not context.join(timeout=1.0):
            if time.monotonic() > end:
                for process in context.processes:
                    process.kill()
                pytest.fail("the processes wait for each other")


def _in_group(rank: int, place: str, work: Callable[..., object], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=2)
    work(rank, *given)
    dist.destroy_process_group()
