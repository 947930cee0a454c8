"""Parameters of several models as one stacked tensor, and gradients in the memory layout that optimizers rely on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stack_in_place(own: Sequence[Tensor]) -> Tensor:
    """Stack a parameter or buffer of R models (R, ...), and make each model's own a view of the stacked tensor.

    The memory layout (such as channels-last) stays, because the state of an optimizer that was made before has it too.

    Example:
        >>> own = [torch.zeros(2), torch.ones(2)]
        >>> stacked = stack_in_place(own)
        >>> stacked += 1
        >>> own[1]
        tensor([2., 2.])
    """
    first = own[0].detach()
    stacked = torch.stack([tensor.detach() for tensor in own])
    if first.ndim == 4 and not first.is_contiguous() and first.is_contiguous(memory_format=torch.channels_last):
        stacked = _with_strides(stacked, (first.numel(), *first.stride()))
    for tensor, view in zip(own, stacked.unbind(), strict=True):
        tensor.data = view
    return stacked


def laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient (R, ...) in the memory layout of its parameter (R, ...); R models are stacked.

    Autograd ensures that for gradients that it accumulates itself. PyTorch's fused optimizers rely on it: with another
    layout they take each number for the gradient of another element, without an error.
    """
    return gradient if gradient.stride() == parameter.stride() else _with_strides(gradient, parameter.stride())


def _with_strides(values: Tensor, strides: tuple[int, ...]) -> Tensor:
    return values.new_empty_strided(values.shape, strides).copy_(values)
