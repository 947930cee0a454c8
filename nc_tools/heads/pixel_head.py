"""A head for each pixel of a map, in place of the last convolution of a segmentation network."""

from __future__ import annotations

from torch import Tensor, nn

from nc_tools.heads.head import Head


class PixelHead(nn.Module):
    """Apply a head to every pixel: maps of features (N, D, H, W) in, maps of logits (N, K, H, W) out.

    It takes the place of a 1 x 1 convolution, which is a linear layer for every pixel.
    :func:`~nc_tools.surgery.swap_head` puts it there, and returns the inner head. The pixels are the head's samples:
    ``watch(model).outputs`` has a row for each, in the order of ``labels.flatten()`` for labels (N, H, W).

    Args:
        head: Any head.

    Attributes:
        in_channels: D.
        out_channels: K.

    Example:
        >>> import torch
        >>> from nc_tools.heads import ETFHead
        >>> PixelHead(ETFHead(16, 3))(torch.randn(2, 16, 5, 4)).shape
        torch.Size([2, 3, 5, 4])
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    @property
    def in_channels(self) -> int:
        """Width of the features D."""
        return self.head.feature_dim

    @property
    def out_channels(self) -> int:
        """Number of classes K."""
        return self.head.num_classes

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (N, K, H, W) of features (N, D, H, W)."""
        rows = features.movedim(1, 3)
        logits: Tensor = self.head(rows.flatten(0, 2))
        return logits.view(*rows.shape[:3], -1).movedim(3, 1)
