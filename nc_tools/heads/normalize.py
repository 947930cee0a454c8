"""Rows of unit length, and products with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nc_tools._support.tracing import traced


def normalize(x: Tensor, length: float = 1.0) -> Tensor:
    """Scale rows to unit length, or to another; a zero row stays zero and gets a bounded gradient.

    Dividing by ``max(norm, eps)`` would hand a dead feature a gradient of 1 / eps.

    Example:
        >>> normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    if traced():
        return _stepwise(x, length)
    found: Tensor = _Unit.apply(x, length)
    return found


def dot_normalized(x: Tensor, other: Tensor) -> Tensor:
    """Return ``(normalize(x) * other).sum(-1)`` without ever forming ``normalize(x)``.

    A loss that looks at one class vector a sample is a few passes over (N, D); formed step by step, most of its time
    goes into intermediate results of that size. Here there are two of them and the gradient.

    Args:
        x: (N, D).
        other: (N, D).

    Returns:
        (N,).

    Example:
        >>> dot_normalized(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.ones(2, 2))
        tensor([1.4000, 0.0000])
    """
    if traced():
        return (_stepwise(x) * other).sum(-1)
    found: Tensor = _DotWithUnit.apply(x, other)
    return found


def _stepwise(x: Tensor, length: float = 1.0) -> Tensor:
    return x / (_norm(x) / length)


def _norm(x: Tensor) -> Tensor:
    """Return ||row||, and 1 for a row of zeros (N, 1)."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.masked_fill(norm <= torch.finfo(x.dtype).tiny ** 0.5, 1.0)


class _Unit(torch.autograd.Function):
    """u = l x / ||x||, with du/dx applied to g = (g - (g . u) u / l^2) l / ||x||: half of autograd's passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: float) -> Tensor:
        norm = _norm(x) / length
        found = x / norm
        ctx.save_for_backward(x, found, norm)
        ctx.length = length
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, found, norm = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: what is saved must depend on x
            norm = _norm(x) / ctx.length
        along = torch.linalg.vecdot(grad, found).unsqueeze(-1)
        across: Tensor = torch.addcmul(grad, found, along, value=-(ctx.length**-2))
        return across.div_(norm), None


class _DotWithUnit(torch.autograd.Function):
    """c = x . o / ||x||, with dc/dx = o / ||x|| - c x / ||x||^2 and dc/do = x / ||x||, in closed form."""

    # Context and forward in one: with a setup_context of its own, PyTorch inspects the signature at every call, which
    # costs a tenth of the whole step.
    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor) -> Tensor:
        inverse = _norm(x).squeeze(-1).reciprocal()
        dot = (x * other).sum(-1) * inverse
        ctx.save_for_backward(x, other, dot, inverse)
        return dot

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, other, dot, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: what is saved must depend on x
            inverse = _norm(x).squeeze(-1).reciprocal()
            dot = (x * other).sum(-1) * inverse
        along = (grad * inverse).unsqueeze(-1)
        to_x = to_other = None
        if ctx.needs_input_grad[0]:
            to_x = (other * along).addcmul_(x, along * (dot * inverse).unsqueeze(-1), value=-1)
        if ctx.needs_input_grad[1]:
            to_other = x * along
        return to_x, to_other
