"""The samples of all processes as one batch, for losses whose value for a sample depends on the other samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nc_tools.losses._distributed import gather_rows, process_count
from nc_tools.records import Batch, Outputs


def whole_batch(outputs: Outputs, batch: Batch) -> tuple[Outputs, Batch, slice]:
    """Return the outputs and the batch of all processes that take this step, in the order of the ranks.

    Every process then computes the same loss. The gradient of its own features is multiplied by the number of
    processes, so that the mean over processes, which DistributedDataParallel takes, is the gradient of one process with
    all samples. Batches may differ in size. The head of each process computes its outputs anew from all features, and
    the host waits for the sizes.

    Args:
        outputs: The outputs of this process, with a second view or without.
        batch: The batch of this process, with checked labels.

    Returns:
        Both, and the place of this process's samples among all. A loss of these samples alone, with the others as
        negatives, has the gradient of its own share: the mean over processes is again that of one process.
    """
    if process_count() == 1:
        return outputs, batch, slice(None)
    sizes = batch.labels.new_zeros(process_count())
    sizes[dist.get_rank()] = len(batch.labels)
    dist.all_reduce(sizes)
    first = int(sizes[: dist.get_rank()].sum())
    kept = torch.ones_like(batch.labels, dtype=torch.bool) if batch.kept is None else batch.kept
    index, rows = gather_rows(batch.index, torch.stack([batch.labels, kept.to(batch.labels.dtype)], dim=1))
    gathered = _outputs_of_all(outputs, batch.index, first)
    if outputs.second_view is not None:
        gathered.second_view = _outputs_of_all(outputs.second_view, batch.index, first)
    whole = replace(
        batch, inputs=gathered.features, labels=rows[:, 0].contiguous(), index=index, kept=rows[:, 1] > 0,
        second_view=None, tags=None,
    )  # fmt: skip
    return gathered, whole, slice(first, first + len(batch.labels))


def _outputs_of_all(outputs: Outputs, index: Tensor, first: int) -> Outputs:
    """Return the outputs of all processes; the rows of this process begin at ``first``."""
    rows = outputs.upcast_features
    _, gathered = gather_rows(index, rows.detach().contiguous())
    features: Tensor = _RowsOfAll.apply(rows, gathered, first)
    return Outputs(features, features, outputs.head)


class _RowsOfAll(torch.autograd.Function):
    """The gathered rows; the gradient of this process's own rows is the sum of all processes' gradients for them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gathered: Tensor, first: int) -> Tensor:
        ctx.mine = slice(first, first + len(rows))
        return gathered

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.mine], None, None
