"""A backbone whose batches are divided among processes: each computes a part, and has the features of all samples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.models.classifier import Classifier
from nc_tools.training.processes import Processes
from nc_tools.training.split_batch_norm import SplitBatchNorm

# Largest difference between features of a divided and of a whole batch, as a share of the largest feature.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.int64: 0.0, torch.bool: 0.0}
_COARSE = 0.05


class SplitBackbone(nn.Module):
    """A backbone that computes a batch in parts, one in each process, and returns the features of the whole batch.

    Every process gets the whole batch and computes its own part of the features. Head and loss are then computed from
    all features in every process, as in one. In the backward pass each process takes the gradient of its own part;
    after it, :func:`add_gradients` adds those of the parameters.

    Batch normalization uses the statistics of the whole batch (:class:`SplitBatchNorm`). Random numbers of the
    network, as of dropout, are drawn in each process for its own part, and so differ from those of one process; the
    global generator is the same in all processes before and after. At the first batch the first process also computes
    the whole batch, and compares.

    Args:
        backbone: The backbone.
        processes: The processes.
        note: Called in the first process if the network draws random numbers.

    Raises:
        ValueError: When called, if features of an image, or what the network keeps, depend on other images otherwise
            than by batch normalization.
    """

    def __init__(self, backbone: nn.Module, processes: Processes, note: Callable[[str], None]) -> None:
        super().__init__()
        self.backbone = backbone
        self._processes = processes
        self._note = note
        self._checked = False

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features (N, D) of a whole batch."""
        processes, own = self._processes, self._processes.part(len(inputs))
        seed = int(torch.randint(2**62, ()))
        divided = SplitBatchNorm(processes, rows=own.stop - own.start, of=len(inputs))
        before = None if self._checked else [buffer.clone() for buffer in self.backbone.buffers()]
        with _own_random_numbers(inputs.device, seed + processes.rank) as draws, divided:
            mine = self.backbone(inputs[own])
            random = draws()
        features: Tensor = _RowsOfAll.apply(mine, processes, own, len(inputs))
        if before is not None and self.backbone.training:
            self._checked = True
            processes.first_decides(lambda: self._check(inputs, features.detach(), before, random=random))
        return features

    @torch.no_grad()
    def _check(self, inputs: Tensor, features: Tensor, before: list[Tensor], *, random: bool) -> bool:
        if random:
            self._note(
                "the network draws random numbers, as for dropout: each process draws those of its own images, so the "
                "numbers of the run depend on how many processes there are"
            )
            return True
        buffers = list(self.backbone.buffers())
        after = [buffer.clone() for buffer in buffers]
        _copy(before, buffers)
        whole = self.backbone(inputs)
        differing = [_differ(a, b) for a, b in zip([features, *after], [whole, *buffers], strict=True)]
        _copy(after, buffers)
        if any(differing):
            raise ValueError(
                f"a batch of {type(self.backbone).__name__} cannot be divided among processes, because its features "
                f"of an image, or statistics that it keeps, depend on other images of the batch, and not by batch "
                f"normalization alone: train it in one process"
            )
        return True


def _copy(values: list[Tensor], buffers: list[Tensor]) -> None:
    for value, buffer in zip(values, buffers, strict=True):
        buffer.copy_(value)


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors differ by more than rounding; what is not finite is left to the meter."""
    a, b = one.double(), other.double()
    tolerance = _TOLERANCE.get(other.dtype, _COARSE) * b.abs().max() if b.numel() else 0.0
    return bool(((a - b).abs() > tolerance).any())


def add_gradients(model: Classifier, loss: nn.Module, processes: Processes) -> None:
    """Give every process the gradients of the whole batch, after a backward pass.

    Those of the backbone are added up. Head and loss were computed by all processes, from the same numbers; all take
    the gradients of the first, so that the rounding of a GPU cannot make them drift apart.
    """
    of_backbone = set(model.backbone.parameters())
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in dict.fromkeys([*model.parameters(), *loss.parameters()]):
        if parameter.grad is not None:
            if not processes.is_first and parameter not in of_backbone:
                parameter.grad.zero_()
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_dtype.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        processes.sum(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


@contextlib.contextmanager
def _own_random_numbers(device: torch.device, seed: int) -> Iterator[Callable[[], bool]]:
    """Draw from other random numbers inside the ``with`` block; yield a function that says whether some were drawn."""

    def states() -> list[Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        before = states()
        yield lambda: any(not a.equal(b) for a, b in zip(before, states(), strict=True))


class _RowsOfAll(torch.autograd.Function):
    """The rows of all processes; the gradient is that of this process's own rows, which every process knows."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, processes: Processes, own: slice, count: int) -> Tensor:
        ctx.own = own
        rows = mine.new_zeros(count, *mine.shape[1:])
        rows[own] = mine
        processes.sum(rows)  # of zeros but for one process: exact
        return rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return grad[ctx.own], None, None, None
