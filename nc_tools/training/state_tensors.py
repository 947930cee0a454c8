"""All tensors that a training step changes, and their values at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from nc_tools.training.training_state import TrainingState

Values = Mapping[str, list[Tensor]]


class StateTensors:
    """The tensors of a training, their values now, and the state of the random numbers.

    Args:
        state: The training.

    Attributes:
        start: The values at the start, by group, such as "weights" or "buffers".
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._tensors = _tensors_of(state)
        self.start: Values = self.now()
        self._devices = sorted({t.device for t in self._tensors["weights"] if t.is_cuda}, key=str)
        self._random = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._devices)]

    def now(self) -> Values:
        """Return copies of the present values.

        Raises:
            RuntimeError: If the training holds other tensors than at the start.
        """
        tensors = _tensors_of(self._state)
        for name, before in self._tensors.items():
            if list(map(id, before)) != list(map(id, tensors[name])):
                raise RuntimeError(f"a step replaces tensors of the {name} in place of changing them")
        return {name: [value.detach().clone() for value in values] for name, values in tensors.items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Set tensors and random numbers to what they were at the start, also if there are other tensors now."""
        for name, tensors in _tensors_of(self._state).items():
            for tensor, value in zip(tensors, self.start[name], strict=True):
                tensor.copy_(value)
        on_cpu, *on_gpus = self._random
        torch.set_rng_state(on_cpu)
        for device, random in zip(self._devices, on_gpus, strict=True):
            torch.cuda.set_rng_state(random, device)


def relative_difference(start: list[Tensor], one: list[Tensor], other: list[Tensor]) -> float:
    """Return how much two results of a step differ, as a share of the change from the start to the first of them.

    Norms are over all elements together; differences of integers count like others.

    Example:
        >>> relative_difference([torch.zeros(2)], [torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 4.5])])
        0.1
    """
    change, difference = (_distance(one, values) for values in (start, other))
    return 0.0 if difference == 0 else difference / change if change > 0 else float("inf")


def _distance(one: list[Tensor], other: list[Tensor]) -> float:
    squares = [(a.double() - b.double()).square().sum() for a, b in zip(one, other, strict=True)]
    return float(torch.stack([square.cpu() for square in squares]).sum().sqrt()) if squares else 0.0


def _tensors_of(state: TrainingState) -> dict[str, list[Tensor]]:
    """Return the tensors of a training by group, such as "weights"; each tensor is in one group only."""
    taken: set[int] = set()

    def new(tensors: Iterator[Tensor]) -> list[Tensor]:
        others = [t for t in tensors if id(t) not in taken]
        taken.update(map(id, others))
        return others

    average = None if state.ema is None else state.ema.model
    return {
        "weights": new(p for part in (state.model, state.loss) for p in part.parameters()),
        "buffers": new(state.model.buffers()),
        "loss's state": new(state.loss.buffers()),
        "optimizer's state": new(
            value for values in state.optimizer.state.values() for value in values.values() if isinstance(value, Tensor)
        ),
        "weight average": new(
            iter(()) if average is None else (t for t in (*average.parameters(), *average.buffers()))
        ),
    }
