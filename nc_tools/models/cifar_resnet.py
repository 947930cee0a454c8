"""The residual networks of He et al. for CIFAR (ResNet-20, ResNet-32, ...)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.stride = stride
        self.added = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        short = x
        if self.added or self.stride > 1:
            # Option A of the paper: subsample and pad with zero channels, so that the shortcut has no parameters.
            half = self.added // 2
            short = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.added - half))
        return torch.relu(self.body(x) + short)


class CIFARResNet(nn.Module):
    """ResNet for 32 x 32 images: 16, 32 and 64 channels, parameter-free shortcuts; features (N, 64), non-negative.

    ResNet-32 is the usual network of the long-tail literature. Source: He et al. 2016, section 4.2. Convolutions are
    initialized as there (Kaiming normal).

    Args:
        depth: 6 n + 2, such as 20, 32 or 56.
        in_channels: Channels of the images.

    Raises:
        ValueError: If the depth is not 6 n + 2.

    Example:
        >>> CIFARResNet(20)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 64])
    """

    num_features = 64

    def __init__(self, depth: int = 32, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"the depth of a CIFAR ResNet must be 6 * n + 2 (20, 32, 44, 56, ...), got {depth}")
        blocks = (depth - 2) // 6
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
        ]
        before = 16
        for channels in (16, 32, 64):
            for index in range(blocks):
                layers.append(_Block(before, channels, stride=2 if index == 0 and channels > 16 else 1))
                before = channels
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to features (N, 64)."""
        return torch.mean(self.layers(images), dim=(2, 3))
