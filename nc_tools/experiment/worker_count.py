"""How many processes make the runs of a comparison, and with how many threads each."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from nc_tools._support.available_cores import available_cores


class WorkerCount(NamedTuple):
    """The number of worker processes, and the CPU threads of each."""

    workers: int
    threads: int


def worker_count(workers: int | None, device: str) -> WorkerCount:
    """Return how many worker processes there are: as many as asked for, else one for each core, or one on a GPU.

    They share the cores, and none has more threads than OMP_NUM_THREADS says, where it is set.

    Args:
        workers: What ``--workers`` asks for, or None.
        device: Where the runs are made, such as "cuda:0".

    Raises:
        ValueError: If there is less than one.
    """
    cores = available_cores()
    if workers is None:
        workers = cores if torch.device(device).type == "cpu" else 1
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    return WorkerCount(workers, max(1, min(cores // workers, _threads_allowed(cores))))


def _threads_allowed(cores: int) -> int:
    """Return the first number in OMP_NUM_THREADS, or the number of cores if it holds none."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else cores
