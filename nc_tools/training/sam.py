"""Sharpness-aware minimization: SAM around any optimizer, and its form for imbalanced classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nc_tools.losses.loss_term import LossTerm
from nc_tools.losses.reweighting import ClassBalancedLoss
from nc_tools.training.mixed_loss import frozen_loss_state


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimization around any optimizer: the gradient of a step is taken rho uphill of the weights.

    Finds minima whose neighborhood is low too, which generalize better, at twice the cost of a step. With g the
    gradient at w over all parameters together,

        e = rho g / ||g||;   g' = gradient at w + e;   the wrapped optimizer steps from w with g'

    Source: Foret et al. 2021, eq. 2 and algorithm 1. Parameters without a gradient stay where they are; the weights
    come back bit for bit, because they are kept and not computed back; nothing waits for the device. In your own loop:

        optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05)
        loss(model(x), y).backward()
        optimizer.first_step(zero_grad=True)
        loss(model(x), y).backward()
        optimizer.second_step(zero_grad=True)

    or, with a closure that computes loss and gradient anew, the first backward and then ``optimizer.step(closure)``.
    Clip gradients before the second step. Batch-norm statistics move in both passes unless the second stands inside
    :func:`still`. SAM-A for imbalanced classes (Shwartz-Ziv et al. 2023) is the same wrapper: make the first backward
    on a class-weighted loss, such as :class:`~nc_tools.losses.ClassBalancedLoss`, and the second on the plain one.

    Rates are those of the wrapped optimizer, in the same ``param_groups``; ``state_dict`` is its own too, as nothing
    is kept from one step to the next. Make checkpoints between steps.

    Args:
        optimizer: What makes the step.
        rho: Length of the way uphill; .05 is usual, .1 or .2 for long training.

    Raises:
        ValueError: If rho is not positive.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = SAM(torch.optim.SGD([w], lr=0.1), rho=5.0)
        >>> w.square().sum().backward()
        >>> optimizer.first_step(zero_grad=True)
        >>> w.tolist()
        [6.0, 8.0]
        >>> w.square().sum().backward()
        >>> optimizer.second_step()
        >>> [round(x, 4) for x in w.tolist()]
        [1.8, 2.4]
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rho: float = 0.05) -> None:
        _check_rho(rho)
        super().__init__(optimizer.param_groups, {})
        self.base = optimizer
        self.rho = rho
        self._left: list[tuple[Tensor, Tensor]] | None = None
        self._share()

    def _share(self) -> None:
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    @torch.no_grad()
    def first_step(self, *, zero_grad: bool = False) -> None:
        """Go rho uphill along the gradients that are there.

        Raises:
            RuntimeError: If the weights are uphill already.
        """
        if self._left is not None:
            raise RuntimeError("SAM is uphill already: finish with second_step() before the next first_step()")
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        self._left = [(p, p.detach().clone()) for p in moved]
        if moved:
            slopes = [p.grad for p in moved]
            factor = self.rho / (_norm(slopes) + 1e-12)
            torch._foreach_add_(moved, torch._foreach_mul(slopes, factor))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, *, zero_grad: bool = False) -> None:
        """Come back, and let the wrapped optimizer step with the gradients taken uphill.

        Raises:
            RuntimeError: If there was no first step.
        """
        self.step()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Finish a step; with a closure make all of it from the gradients that are there.

        Args:
            closure: Computes the loss and its gradients anew; called once, uphill. None: as :meth:`second_step`.

        Returns:
            What the closure returned.

        Raises:
            RuntimeError: Without a closure and without a first step.
        """
        told = None
        if closure is not None:
            self.first_step(zero_grad=True)
            with torch.enable_grad():
                told = closure()
        if self._left is None:
            raise RuntimeError(
                "SAM needs two passes and has seen one: call first_step() after the first backward, or step(closure)"
            )
        for parameter, before in self._left:
            parameter.copy_(before)
        self._left = None
        self.base.step()
        return told

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the wrapped optimizer."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of the wrapped optimizer."""
        self.base.load_state_dict(state_dict)
        self._share()


@dataclass(frozen=True)
class SharpnessAware:
    """Train with :class:`SAM`.

    Attributes:
        rho: Length of the way uphill.
    """

    rho: float = 0.05

    def __post_init__(self) -> None:
        _check_rho(self.rho)

    def ascent(self, loss: LossTerm, class_counts: Sequence[int] | None) -> LossTerm:  # noqa: ARG002
        """Return the loss whose gradient points uphill."""
        return loss


@dataclass(frozen=True)
class AsymmetricSharpnessAware:
    """Train with SAM-A: uphill on the class-weighted loss, downhill on the plain one (Shwartz-Ziv et al. 2023).

    Rare classes have the sharpest minima, and in the plain ascent they hardly count. Weights are those of
    :func:`~nc_tools.losses.class_balanced_weights`, inverse frequencies by default.

    Attributes:
        rho: Length of the way uphill.
        beta: From 0, equal weights, to 1, inverse frequencies.
    """

    rho: float = 0.05
    beta: float = 1.0

    def __post_init__(self) -> None:
        _check_rho(self.rho)
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must lie in [0, 1], got {self.beta}: 1 is inverse frequencies")

    def ascent(self, loss: LossTerm, class_counts: Sequence[int] | None) -> LossTerm:
        """Return the loss whose gradient points uphill.

        Raises:
            ValueError: If the class counts are not given.
            TypeError: If the loss has no value per sample.
        """
        if class_counts is None:
            raise ValueError("SAM-A weighs classes by their counts, and none were given: pass class_counts to fit()")
        return ClassBalancedLoss(class_counts, loss=loss, beta=self.beta)  # type: ignore[arg-type]


Sharpness: TypeAlias = SharpnessAware | AsymmetricSharpnessAware


@contextmanager
def frozen_batch_norm(model: nn.Module, loss: nn.Module) -> Iterator[None]:
    """Make a further pass, forward and backward, that leaves no trace but gradients.

    The running statistics of normalization layers come back afterwards, and a loss's state does not move.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with still(norm, nn.Identity()):
        ...     _ = norm(torch.randn(8, 2))
        >>> norm.running_mean.tolist(), norm.num_batches_tracked.item()
        ([0.0, 0.0], 0)
    """
    layers = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._NormBase) and part.training]
    statistics = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers(recurse=False)]
    try:
        with frozen_loss_state(loss):
            yield
    finally:
        # After the backward pass, which checks that what the forward pass has read is unchanged.
        for buffer, before in statistics:
            buffer.copy_(before)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all numbers together, at least float32, where the first tensor is."""
    each = [torch.linalg.vector_norm(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in tensors]
    norm: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(each[0].device) for norm in each]))
    return norm


def _check_rho(rho: float) -> None:
    if not (math.isfinite(rho) and rho > 0):
        raise ValueError(f"rho is how far SAM goes uphill and must be positive and finite, got {rho}: 0.05 is usual")
