"""Results that depend on the values of tensors only, computed once for equal ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


class ByContent:
    """Keeps results by the content of the tensors that they were computed from.

    Use it for measures of features that many models share, such as heads on one frozen backbone: a checksum of the
    features takes a hundredth of the time of such a measure.

    Example:
        >>> kept = ByContent()
        >>> kept("sum", [torch.ones(3)], lambda: 3.0), kept("sum", [torch.ones(3)], lambda: 1 / 0)
        (3.0, 3.0)
    """

    def __init__(self) -> None:
        self._results: dict[tuple[str, bytes], object] = {}

    def __call__(self, name: str, tensors: Sequence[Tensor], compute: Callable[[], T]) -> T:
        """Return the result of ``compute``, or the kept one for the same name and equal tensors.

        Args:
            name: Name of the result, with every setting that the result depends on.
            tensors: What the result is computed from; ``compute`` reads no other data.
            compute: Called if no result is kept.
        """
        digest = hashlib.sha256()
        for tensor in tensors:
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{values.dtype} {tuple(values.shape)} ".encode())
            digest.update(values.flatten().view(torch.uint8).numpy().data if values.numel() else b"")
        key = (name, digest.digest())
        if key not in self._results:
            self._results[key] = compute()
        return cast(T, self._results[key])
