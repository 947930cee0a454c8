"""A limit on the memory that building a model may take, where a file that came from anybody gives its sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocationLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raise a MemoryError inside a ``with`` block when PyTorch makes a tensor that is too large.

    A file of a few bytes can name any number of classes, layers or pixels. PyTorch would take all memory, and the
    system would end the process or others.

    Args:
        max_bytes: Limit for a single tensor. All new tensors together, such as parameters, may take twice as much; in
            this sum, results of operations on tensors do not count, because most of them are freed at once.

    Example:
        >>> from torch import nn
        >>> with AllocationLimit(1000):
        ...     nn.Linear(1000, 1000)
        Traceback (most recent call last):
        ...
        MemoryError: a tensor of shape (1000, 1000) needs 4,000,000 bytes, more than the 1,000 that fit the file
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._max_bytes = max_bytes
        self._made = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        is_new = not any(isinstance(value, Tensor) for value in tree_leaves((args, options)))
        if is_new and args and isinstance(args[0], list | tuple):  # zeros and the like: before the memory is written
            self._check(
                tuple(args[0]), math.prod(args[0]) * (options.get("dtype") or torch.get_default_dtype()).itemsize
            )
        result = func(*args, **options)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                size = tensor.untyped_storage().nbytes()
                self._made += size if is_new else 0
                self._check(tuple(tensor.shape), size)
        return result

    def _check(self, shape: tuple[int, ...], size: int) -> None:
        if size <= self._max_bytes and self._made <= 2 * self._max_bytes:
            return
        what = f"a tensor of shape {shape} needs {size:,}"
        if size <= self._max_bytes:
            what = f"all tensors together need {self._made:,}"
        raise MemoryError(f"{what} bytes, more than the {self._max_bytes:,} that fit the file")
