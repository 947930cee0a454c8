"""Scaling rows to unit length, and products with unit rows, with gradients in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nc_tools._support.tracing import traced


def normalize(x: Tensor, length: float = 1.0) -> Tensor:
    """Scale rows to unit length, or to ``length``; a zero row stays zero and has a bounded gradient.

    Dividing by ``max(norm, eps)`` would give a zero row a gradient of 1 / eps.

    Example:
        >>> normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    if traced():
        return _stepwise(x, length)
    unit: Tensor = _Normalize.apply(x, length)
    return unit


def dot_normalized(x: Tensor, other: Tensor) -> Tensor:
    """Return ``(normalize(x) * other).sum(-1)`` without storing ``normalize(x)``.

    A loss with one class vector per sample takes a few passes over (N, D). Computed step by step, most of its time goes
    into intermediate results of that size. This function makes only two of them, and the gradient.

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
    dot: Tensor = _DotNormalized.apply(x, other)
    return dot


def _stepwise(x: Tensor, length: float = 1.0) -> Tensor:
    """Return :func:`normalize` of x, with autograd's gradient."""
    return x / (_norm(x) / length)


def _norm(x: Tensor) -> Tensor:
    """Return the norm of each row (N, 1), or 1 for a row of zeros or of numbers whose squares underflow."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.masked_fill(norm <= torch.finfo(x.dtype).tiny ** 0.5, 1.0)


class _Normalize(torch.autograd.Function):
    """u = l x / ||x||, with the gradient (g - (g . u) u / l^2) l / ||x||: half of autograd's passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: float) -> Tensor:
        norm = _norm(x) / length
        unit = x / norm
        ctx.save_for_backward(x, unit, norm)
        ctx.length = length
        return unit

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, unit, norm = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives the norm must depend on x
            norm = _norm(x) / ctx.length
        along = torch.linalg.vecdot(grad, unit).unsqueeze(-1)
        across: Tensor = torch.addcmul(grad, unit, along, value=-(ctx.length**-2))
        return across.div_(norm), None


class _DotNormalized(torch.autograd.Function):
    """c = x . o / ||x||, with dc/dx = o / ||x|| - c x / ||x||^2 and dc/do = x / ||x||, in closed form."""

    # No separate setup_context: with one, PyTorch inspects the signature at every call, for a tenth of a step's time.
    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor) -> Tensor:
        inverse = _norm(x).squeeze(-1).reciprocal()
        dot = (x * other).sum(-1) * inverse
        ctx.save_for_backward(x, other, dot, inverse)
        return dot

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, other, dot, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives these must depend on x
            inverse = _norm(x).squeeze(-1).reciprocal()
            dot = (x * other).sum(-1) * inverse
        along = (grad * inverse).unsqueeze(-1)
        to_x = to_other = None
        if ctx.needs_input_grad[0]:
            to_x = (other * along).addcmul_(x, along * (dot * inverse).unsqueeze(-1), value=-1)
        if ctx.needs_input_grad[1]:
            to_other = x * along
        return to_x, to_other
