"""Batch normalization of a batch that is divided among processes, with the statistics of the whole batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nc_tools.training.processes import Processes


class SplitBatchNorm(TorchFunctionMode):
    """Inside the ``with`` block, ``torch.nn.functional.batch_norm`` uses the statistics of all processes' samples.

    So every layer that calls it is covered, whatever its class; ``torch.nn.SyncBatchNorm`` replaces layers of
    PyTorch's own classes only, and runs on GPUs only. Mean and variance are sums over the processes, with their
    gradients, and the running statistics are the same in all of them.

    Args:
        processes: The processes.
        rows: Number of samples in this process.
        of: Number of samples in all processes.
    """

    def __init__(self, processes: Processes, *, rows: int, of: int) -> None:
        super().__init__()
        self._processes = processes
        self._rows = rows
        self._of = of

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        function = self._batch_norm if func is F.batch_norm else func
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,  # noqa: A002  the name of PyTorch's own argument
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,  # noqa: FBT001, FBT002
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        # A layer may see several rows for each sample, such as the patches of an image.
        each, rest = divmod(len(input), self._rows)
        if rest:
            raise ValueError(
                f"batch normalization of {len(input)} rows cannot be divided among processes, because they are not a "
                f"multiple of the {self._rows} samples of this process: train the network in one process"
            )
        count = each * self._of * math.prod(input.shape[2:])
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        over = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        mean = self._sum(values.sum(over)) / count
        centered = values - mean.view(shape)
        variance = self._sum(centered.square().sum(over)) / count
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                running_var.lerp_((variance * (count / max(count - 1, 1))).to(running_var.dtype), momentum)
        factor = (variance + eps).rsqrt()
        normalized = centered * (factor if weight is None else factor * weight).view(shape)
        return (normalized if bias is None else normalized + bias.view(shape)).to(input.dtype)

    def _sum(self, values: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(values, self._processes)
        return total


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        total = values.clone()
        processes.sum(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone()
        ctx.processes.sum(total)
        return total, None
