"""A small convolutional network for small images."""

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Three convolutions with batch normalization and global average pooling: non-negative features (N, 4 * width).

    Small enough for a CPU: at width 16 about 0.4 M multiply-adds for an 8 x 8 image and 0.7 M for a 32 x 32 one. Each
    convolution halves the map until it is 4 pixels wide.

    Args:
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
        width: Channels of the first convolution; the second and third have two and four times as many.

    Example:
        >>> ConvNet(1, 8)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """

    def __init__(self, in_channels: int, image_size: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size, before = image_size, in_channels
        for channels in (width, 2 * width, 4 * width):
            stride = 2 if size > 4 else 1
            layers += [
                nn.Conv2d(before, channels, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            size, before = -(-size // stride), channels
        self.layers = nn.Sequential(*layers)
        self.num_features = before

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to features (N, 4 * width)."""
        return torch.mean(self.layers(images), dim=(2, 3))
