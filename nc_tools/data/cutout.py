"""Cutout: set a random square of each image to zero."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cutout:
    """Set a square of each image to zero, at a random position and clipped at the border.

    The network then cannot rely on a single part of the image. Source: DeVries and Taylor 2017, section 3.2, with 16
    pixels for CIFAR-10 and 8 for CIFAR-100. As in the paper, normalized inputs are set to zero, which is the mean color
    of the training set.

    Attributes:
        size: Side of the square in pixels of the network's input.

    Raises:
        ValueError: If the size is not a positive whole number.

    Example:
        >>> Cutout(2).apply(torch.ones(1, 1, 3, 3), torch.tensor([[0.0, 0.5]]))
        tensor([[[[0., 0., 1.],
                  [1., 1., 1.],
                  [1., 1., 1.]]]])
    """

    size: int

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(
                f"size of Cutout is a side in pixels and must be a whole number of at least 1, got {self.size!r}"
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the center of the square, (y, x) in [0, 1), for each of ``count`` images: (count, 2), float32."""
        return torch.rand(count, 2, generator=generator)

    def apply(self, inputs: Tensor, draws: Tensor) -> Tensor:
        """Return the images with a square of zeros in each.

        Args:
            inputs: Normalized images (N, C, H, W).
            draws: (N, 2), on the same device, as :meth:`draw` returns them.

        Returns:
            (N, C, H, W), in the same memory layout.
        """
        rows = self._inside(inputs.shape[2], draws[:, 0])
        columns = self._inside(inputs.shape[3], draws[:, 1])
        kept = ~(rows[:, None, :, None] & columns[:, None, None, :])
        # A product: masked_fill would change the memory layout, and takes twice the time on a CPU.
        return inputs * kept.to(inputs.dtype)

    def _inside(self, length: int, center: Tensor) -> Tensor:
        """Return which positions along a side lie in the square (N, length), bool."""
        first = (center * length).long().clamp_(max=length - 1) - self.size // 2
        position = torch.arange(length, device=center.device)
        return (position >= first[:, None]) & (position < first[:, None] + self.size)
