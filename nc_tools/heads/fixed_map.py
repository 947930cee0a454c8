"""A linear map that is not learned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nc_tools._support.initial_tensors import InitialTensors, check_memory


class FixedMap(InitialTensors):
    """A linear map whose matrix is a buffer called ``rows``.

    It is not called ``weight``, because code that initializes the ``weight`` of every layer would overwrite it.

    Args:
        draw: Returns the matrix (D', D), on any device. It is called again if the memory of the matrix was lost, as by
            ``to_empty``, and must be picklable.

    Example:
        >>> FixedMap(draw=lambda: torch.eye(2))(torch.ones(1, 2))
        tensor([[1., 1.]])
    """

    rows: Tensor

    def __init__(self, draw: Callable[[], Tensor]) -> None:
        super().__init__()
        self._draw = draw
        self.register_buffer("rows", draw().to(torch.get_default_device(), torch.get_default_dtype()).contiguous())

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the matrix as it was drawn."""
        return {"rows": self._draw()}

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, D) to (N, D'), in their dtype."""
        check_memory(self.rows, features, self)
        return nn.functional.linear(features, self.rows.to(features.dtype))
