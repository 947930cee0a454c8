"""Recognize the errors that mean that a device or this machine has too little memory."""

from __future__ import annotations

import torch

_OF_THE_CPU = "can't allocate memory"


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return True if PyTorch could not allocate memory, on a GPU or for a tensor of the CPU.

    Example:
        >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory.")), is_out_of_memory(ValueError("no"))
        (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _OF_THE_CPU in str(error)
