"""Trainings as generators: they stop at each pass through the backbone, so that several trainings can share it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

T = TypeVar("T")
P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


@dataclass(eq=False)
class BackbonePass:
    """The pass of one training step through a backbone, for which the training waits.

    A training yields it to wait for the features. Its caller may compute them together with those of other trainings;
    otherwise the training computes them itself, and its backward pass goes through the backbone. If the caller has
    computed them, the training yields the same pass again when it has the gradient of its loss with respect to the
    features, and waits for the gradients of the backbone's parameters.

    Attributes:
        backbone: The backbone, which computes features from inputs.
        inputs: (B, ...).
        dtype: The dtype in which the backbone computes: by autocast if it is not float32.
        alone: Why this pass cannot be computed together with those of other trainings; None if it can.
        features: (B, D), once they are computed; a leaf if they were computed together with those of others. None again
            after the backward pass.
        seconds: Time that the pass took, in seconds, or this training's share of it.
        error: The error that prevented the pass; it is raised in the training.
    """

    backbone: nn.Module
    inputs: Tensor
    dtype: torch.dtype
    alone: str | None = None
    features: Tensor | None = None
    seconds: float = 0.0
    error: Exception | None = None

    def compute(self) -> None:
        """Compute the features alone."""
        with autocast(self.inputs.device, self.dtype):
            self.features = self.backbone(self.inputs)

    def take_seconds(self) -> float:
        """Return the seconds so far, and count from zero again."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


Steps: TypeAlias = Generator[BackbonePass, None, T]
"""A training, or a run with trainings in it, that waits at each pass through the backbone and returns a result."""


class InSteps(Protocol[P, T_co]):
    """A function that trains alone when it is called, and whose ``steps`` can be run beside those of others."""

    @property
    def steps(self) -> Callable[P, Steps[T_co]]:
        """The generator function, which takes the same arguments."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Train alone, and return the result."""


def in_steps(function: Callable[P, Steps[T]]) -> InSteps[P, T]:
    """Return a function that trains alone when it is called, and has the given generator function as ``steps``.

    Example:
        >>> @in_steps
        ... def width(backbone: nn.Module, inputs: Tensor) -> Steps[int]:
        ...     request = BackbonePass(backbone, inputs, torch.float32)
        ...     yield request
        ...     request.compute()
        ...     return request.features.shape[1]
        >>> width(nn.Linear(3, 5), torch.zeros(2, 3))
        5
    """

    @functools.wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_alone(function(*args, **kwargs))

    signature = inspect.signature(function)
    returned = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
    with_steps: Any = alone
    with_steps.__signature__ = signature.replace(return_annotation=returned)
    with_steps.steps = function
    return cast("InSteps[P, T]", with_steps)


def run_alone(steps: Steps[T]) -> T:
    """Run a training that computes all its passes itself, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Return a context with autocast to ``dtype`` on the device; for float32 it changes nothing. It can be reused."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
