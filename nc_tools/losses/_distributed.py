"""Sums, means and rows of the processes that train together."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """Return how many processes take this step together; 1 outside distributed training.

    Without gradients it is 1 as well: that is an evaluation, which one process may do alone. To wait for the others
    would then never end.
    """
    together = dist.is_available() and dist.is_initialized() and torch.is_grad_enabled()
    return dist.get_world_size() if together else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, with its gradient. With one process, return the tensor itself."""
    if process_count() == 1:
        return values
    total: Tensor = _SumOverProcesses.apply(values)
    return total


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, with its gradient. With one process, return the tensor itself."""
    return values if process_count() == 1 else sum_over_processes(values) / process_count()


class _SumOverProcesses(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        total = grad.clone()
        dist.all_reduce(total)
        return total


def gather_rows(index: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices (N,) and rows (N, K) of all processes, in the order of the ranks.

    Batches may differ in size between processes. With more than one process the host waits for the sizes.
    """
    world = process_count()
    if world == 1:
        return index, rows
    sizes = index.new_zeros(world)
    sizes[dist.get_rank()] = len(index)
    dist.all_reduce(sizes)
    lengths = sizes.tolist()
    longest = max(lengths)
    # Backends gather equal shapes only: shorter batches are padded, and cut again below.
    padded_index = index.new_zeros(longest)
    padded_rows = rows.new_zeros(longest, rows.shape[1])
    padded_index[: len(index)], padded_rows[: len(rows)] = index, rows
    indices = [torch.empty_like(padded_index) for _ in range(world)]
    gathered = [torch.empty_like(padded_rows) for _ in range(world)]
    dist.all_gather(indices, padded_index)
    dist.all_gather(gathered, padded_rows)
    return (
        torch.cat([part[:n] for part, n in zip(indices, lengths, strict=True)]),
        torch.cat([part[:n] for part, n in zip(gathered, lengths, strict=True)]),
    )
