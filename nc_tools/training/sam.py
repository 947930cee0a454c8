"""Sharpness-aware minimization (SAM) around any optimizer, and SAM-A for imbalanced classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.losses.loss_term import LossTerm
from nc_tools.losses.reweighting import ClassBalancedLoss
from nc_tools.training.mixed_loss import frozen_loss_state


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimization around any optimizer.

    Each step uses the gradient at perturbed weights, at distance rho in the direction in which the loss rises fastest.
    This finds minima in whose neighborhood the loss is low too. They generalize better; a step costs twice as much.
    With g the gradient at w over all parameters together,

        e = rho g / ||g||;   g' = gradient at w + e;   the wrapped optimizer steps from w with g'

    Source: Foret et al. 2021, eq. 2 and algorithm 1. Parameters without a gradient are not perturbed. The original
    weights are copied and restored bit by bit. Nothing waits for the device. In your own loop:

        optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05)
        loss(model(x), y).backward()
        optimizer.first_step(zero_grad=True)
        loss(model(x), y).backward()
        optimizer.second_step(zero_grad=True)

    With a closure that computes the loss and its gradients: call ``backward()`` once, then ``optimizer.step(closure)``.
    Clip gradients before the second step. Both passes update batch-norm statistics, unless the second pass is inside
    :func:`frozen_statistics`. SAM-A for imbalanced classes (Shwartz-Ziv et al. 2023) uses the same wrapper: compute the
    first gradient from a class-weighted loss, such as :class:`~nc_tools.losses.ClassBalancedLoss`, and the second from
    the plain loss.

    ``param_groups`` and ``state_dict`` are those of the wrapped optimizer. SAM keeps nothing from one step to the next;
    save checkpoints between steps.

    Args:
        optimizer: The optimizer that makes the step.
        rho: Size of the perturbation. 0.05 is usual; 0.1 or 0.2 for long training.

    Raises:
        ValueError: If rho is not positive and finite.

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
        self._original: list[tuple[Tensor, Tensor]] | None = None
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    @torch.no_grad()
    def first_step(self, *, zero_grad: bool = False) -> None:
        """Perturb the weights by rho along the present gradients.

        Raises:
            RuntimeError: If the weights are perturbed already.
        """
        if self._original is not None:
            raise RuntimeError("first_step() was called twice. Call second_step() before the next first_step()")
        perturbed = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        self._original = [(p, p.detach().clone()) for p in perturbed]
        if perturbed:
            gradients = [p.grad for p in perturbed]
            factor = self.rho / (_norm(gradients) + 1e-12)
            torch._foreach_add_(perturbed, torch._foreach_mul(gradients, factor))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, *, zero_grad: bool = False) -> None:
        """Restore the weights and step with the gradients computed at the perturbed weights.

        Raises:
            RuntimeError: If :meth:`first_step` was not called before.
        """
        self.step()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do the second half of a SAM step, or, with a closure, a full step from the present gradients.

        Args:
            closure: Computes the loss and its gradients. It is called once, at the perturbed weights. None: as
                :meth:`second_step`.

        Returns:
            The closure's return value.

        Raises:
            RuntimeError: If there is no closure and :meth:`first_step` was not called before.
        """
        result = None
        if closure is not None:
            self.first_step(zero_grad=True)
            with torch.enable_grad():
                result = closure()
        if self._original is None:
            raise RuntimeError(
                "SAM needs two backward passes per step, got one. Call first_step() after the first, or step(closure)"
            )
        for parameter, before in self._original:
            parameter.copy_(before)
        self._original = None
        self.base.step()
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the wrapped optimizer."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of the wrapped optimizer."""
        self.base.load_state_dict(state_dict)
        self._share_groups()


@dataclass(frozen=True)
class SharpnessAware:
    """Setting of ``OptimConfig.sam``: train with :class:`SAM`.

    Attributes:
        rho: Size of the perturbation.

    Raises:
        ValueError: If ``rho`` is not positive and finite.
    """

    rho: float = 0.05

    def __post_init__(self) -> None:
        _check_rho(self.rho)

    def ascent_loss(self, loss: LossTerm, class_counts: Sequence[int] | None) -> LossTerm:  # noqa: ARG002
        """Return the loss whose gradient perturbs the weights."""
        return loss


@dataclass(frozen=True)
class AsymmetricSharpnessAware:
    """Setting of ``OptimConfig.sam``: train with SAM-A, for imbalanced classes (Shwartz-Ziv et al. 2023).

    The gradient of a class-weighted loss perturbs the weights; the step follows the gradient of the plain loss. Rare
    classes have the sharpest minima, but hardly count in the perturbation of plain SAM. The class weights are those of
    :func:`~nc_tools.losses.class_balanced_weights`.

    Attributes:
        rho: Size of the perturbation.
        beta: Strength of the class weights, from 0 (equal weights) to 1 (inverse class frequencies).

    Raises:
        ValueError: If ``rho`` is not positive and finite, or ``beta`` is outside [0, 1].
    """

    rho: float = 0.05
    beta: float = 1.0

    def __post_init__(self) -> None:
        _check_rho(self.rho)
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {self.beta}. Use 1 for inverse class frequencies")

    def ascent_loss(self, loss: LossTerm, class_counts: Sequence[int] | None) -> LossTerm:
        """Return the loss whose gradient perturbs the weights.

        Raises:
            ValueError: If the class counts are not given.
            TypeError: If the loss is not a mean of one value per sample.
        """
        if class_counts is None:
            raise ValueError("SAM-A needs class counts, got None. Pass fit(..., class_counts=[...])")
        return ClassBalancedLoss(class_counts, loss=loss, beta=self.beta)  # type: ignore[arg-type]


@contextmanager
def frozen_statistics(model: nn.Module, loss: nn.Module) -> Iterator[None]:
    """Leave normalization statistics and the loss's state unchanged by the passes inside the ``with`` block.

    The layers normalize as usual; their running statistics are restored at the end of the block. The block must contain
    the backward pass too. The loss is in eval mode inside.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with frozen_statistics(norm, nn.Identity()):
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
        # Only after the backward pass: autograd checks that tensors of the forward pass have not changed since.
        for buffer, before in statistics:
            buffer.copy_(before)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all elements together, in at least float32, on the first tensor's device."""
    each = [torch.linalg.vector_norm(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in tensors]
    norm: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(each[0].device) for norm in each]))
    return norm


def _check_rho(rho: float) -> None:
    if not (math.isfinite(rho) and rho > 0):
        raise ValueError(f"rho, the size of SAM's perturbation, must be positive and finite, got {rho}. Try 0.05")
