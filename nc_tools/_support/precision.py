"""The arithmetic of heads, losses and metrics: at least float32, without autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def at_least_float32(values: Tensor, name: str = "features") -> Tensor:
    """Return float32 and float64 values unchanged, and other floating-point values as float32.

    Args:
        values: Any floating-point tensor.
        name: What to call the values in the message.

    Raises:
        TypeError: If the values are not real floating-point numbers.
    """
    if values.dtype in (torch.float32, torch.float64):  # .float() costs time, also where it changes nothing
        return values
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating-point, got {values.dtype}. Convert them with .float().")
    return values.float()


def autocast_off(device_type: str) -> AbstractContextManager[object]:
    """Return a context without autocast, also for devices that have no autocast, such as meta."""
    if device_type == "meta":  # torch.amp.is_autocast_available cannot be compiled by torch 2.10
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


@contextmanager
def measuring_precision(device: torch.device) -> Iterator[None]:
    """Run a block in full precision: without gradients, autocast, TF32 or bfloat16 products.

    Measures of collapse look at a within-class variance of 1e-4 of the between-class variance, which half precision
    would lose.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
