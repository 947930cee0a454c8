"""Run many trainings side by side in one process: each makes its own steps, and they share backbone passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias

import torch
from torch import Tensor, nn

from nc_tools._support.signals import Killed
from nc_tools.training.backbone_stack import BackboneStack, backbone_kind
from nc_tools.training.in_steps import BackbonePass, Steps, T

_RandomState: TypeAlias = tuple[Tensor, list[Tensor]]
"""The state of the global generator of the CPU, and of those of the GPUs."""


@dataclass(frozen=True)
class Ended(Generic[T]):
    """How a training ended.

    Attributes:
        value: What it returned; None if it raised an error.
        error: The error that it raised, or None.
    """

    value: T | None = None
    error: BaseException | None = None


def run_side_by_side(runs: Sequence[Steps[T]], *, on_alone: Callable[[str], None] | None = None) -> list[Ended[T]]:
    """Run trainings side by side, and return how each of them ended. The numbers are those of separate trainings.

    At every step each training asks for the features of its own batch. Trainings whose backbones are of one kind and
    whose batches have one shape get them from a single pass over stacked parameters (``torch.func.vmap``). Each
    training has its own head, loss, optimizer, batch statistics and evaluations. What cannot share a pass is computed
    alone, at the same step. A training that ends or raises an error does not change the others.

    Each training has its own random numbers: the global generators are set back to its state before it goes on. Its
    seconds are those of its own steps and its share of the passes.

    Args:
        runs: Trainings such as ``fit.steps(...)``, see :func:`~nc_tools.training.fit`. Each has a backbone of its own.
        on_alone: Called with the reason why passes are computed alone, once for each reason.

    Example:
        >>> from nc_tools.training.in_steps import BackbonePass
        >>> def width(backbone: nn.Module) -> Steps[int]:
        ...     request = BackbonePass(backbone, torch.zeros(2, 3), torch.float32)
        ...     yield request
        ...     if request.features is None:
        ...         request.compute()
        ...     return request.features.shape[1]
        >>> [ended.value for ended in run_side_by_side([width(nn.Linear(3, 5)), width(nn.Linear(3, 5))])]
        [5, 5]
    """
    before = _random()
    members = [_Member(steps, before) for steps in runs]
    passes = _Passes(on_alone)
    try:
        present = [member for member in members if member.goes_on()]
        while present:
            groups = passes.compute([member.request for member in present if member.request is not None])
            present = [member for member in present if member.goes_on()]
            for stack, group in groups:
                _try(stack.compute_gradients, group)
            shared = {request for _, group in groups for request in group}  # the others are at their next pass
            present = [member for member in present if member.request not in shared or member.goes_on()]
    finally:
        _set_random(before)
    return [member.ended for member in members]


class _Member(Generic[T]):
    """A training in progress, with the state of its random numbers."""

    ended: Ended[T]

    def __init__(self, steps: Steps[T], random: _RandomState) -> None:
        self.request: BackbonePass | None = None
        self._steps = steps
        self._random = random

    @property
    def _error(self) -> Exception | None:
        return None if self.request is None else self.request.error

    def goes_on(self) -> bool:
        """Run the training to its next pass, and return whether there is one."""
        _set_random(self._random)
        try:
            self.request = next(self._steps) if self._error is None else self._steps.throw(self._error)
        except StopIteration as end:
            self.ended = Ended(value=end.value)
            return False
        except (Exception, Killed) as error:  # noqa: BLE001  one training's error must not end the others
            self.ended = Ended(error=error)
            return False
        self._random = _random()
        return True


def _random() -> _RandomState:
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return torch.get_rng_state(), on_gpus


def _set_random(state: _RandomState) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


class _Passes:
    """Computes passes: those that belong together in one stack. A stack is kept while its members stay the same."""

    def __init__(self, on_alone: Callable[[str], None] | None) -> None:
        self._on_alone = on_alone
        self._reasons: set[str] = set()
        self._stacks: list[BackboneStack] = []
        self._kinds: list[object] = []
        self._kind_of: dict[int, tuple[nn.Module, int]] = {}
        self._refused: dict[object, str | None] = {}

    def compute(self, passes: Sequence[BackbonePass]) -> list[tuple[BackboneStack, list[BackbonePass]]]:
        """Compute the passes that belong together; return the stacks that computed some, with their passes."""
        groups: dict[object, list[BackbonePass]] = {}
        for request in passes:
            groups.setdefault(self._key(request), []).append(request)
        together = []
        for group in groups.values():
            try:
                stack = self._stack(group)
            except RuntimeError as error:  # too little memory to try it
                _fail(group, error)
                continue
            if stack is not None:
                _try(stack.compute, group)
                together.append((stack, group))
                continue
            for request in group:  # its training computes it, on a copy: a backbone may change shared inputs
                request.inputs = request.inputs.clone()
        self._stacks = [stack for stack, _ in together]
        return together

    def _key(self, request: BackbonePass) -> object:
        """Return what passes of one stack have in common; something of its own for a pass that is computed alone."""
        if request.alone is not None:
            self._say(request.alone)
            return id(request)
        backbone, inputs = request.backbone, request.inputs
        return inputs.shape, inputs.dtype, request.dtype, backbone.training, self._kind(backbone)

    def _kind(self, backbone: nn.Module) -> int:
        """Return the number of the backbone's kind; comparing the kinds themselves at every step would take long."""
        noted = self._kind_of.get(id(backbone))
        if noted is None or noted[0] is not backbone:
            kind = backbone_kind(backbone) or id(backbone)
            if kind not in self._kinds:
                self._kinds.append(kind)
            noted = self._kind_of[id(backbone)] = (backbone, self._kinds.index(kind))
        return noted[1]

    def _stack(self, group: list[BackbonePass]) -> BackboneStack | None:
        """Return the stack of a group's backbones, or None if they are computed alone."""
        backbones, key = [request.backbone for request in group], self._key(group[0])
        if len(group) == 1 or self._refused.get(key) is not None:
            return None
        stack = next((stack for stack in self._stacks if stack.is_of(backbones)), None) or BackboneStack(backbones)
        if key not in self._refused:
            self._refused[key] = reason = stack.why_not(group)
            if reason is not None:
                self._say(reason)
                return None
        return stack

    def _say(self, reason: str) -> None:
        if reason not in self._reasons and self._on_alone is not None:
            self._on_alone(reason)
        self._reasons.add(reason)


def _try(compute: Callable[[list[BackbonePass]], None], passes: list[BackbonePass]) -> None:
    """Compute passes; an error is raised in each training that waits for them."""
    try:
        compute(passes)
    except Exception as error:  # noqa: BLE001  other trainings go on
        _fail(passes, error)


def _fail(passes: Sequence[BackbonePass], error: Exception) -> None:
    for request in passes:
        request.error = error
