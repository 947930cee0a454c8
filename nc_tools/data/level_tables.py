"""Changes that map each of the 256 levels of a channel to another: as tables, one for each image and channel.

Any such change of a whole batch is then one look-up, whichever each image is given. Tables are (N, C, 256), float32
before they are rounded down to uint8; each agrees with the function of the same name in
``torchvision.transforms.v2.functional`` on uint8 images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.data.color_jitter import gray


def levels(device: torch.device) -> Tensor:
    """Return 0 to 255 (256,), float32."""
    return torch.arange(256, dtype=torch.float32, device=device)


def look_up(images: Tensor, table: Tensor) -> Tensor:
    """Send each pixel through its image's and channel's table.

    Args:
        images: (N, C, H, W), uint8.
        table: (N, C, 256), uint8.

    Returns:
        (N, C, H, W), uint8.

    Example:
        >>> negative = torch.arange(255, -1, -1, dtype=torch.uint8).view(1, 1, 256)
        >>> look_up(torch.tensor([[[[0, 250]]]], dtype=torch.uint8), negative).flatten().tolist()
        [255, 5]
    """
    return table.gather(2, images.flatten(2).long()).view(images.shape)


def brightness_table(strength: Tensor, device: torch.device) -> Tensor:
    """Levels times strength (N,): (N, 1, 256)."""
    return (levels(device) * strength.view(-1, 1, 1)).clamp_(0, 255)


def contrast_table(images: Tensor, strength: Tensor) -> Tensor:
    """Levels blended with the mean of the image's luma, itself rounded down: (N, 1, 256)."""
    mean = gray(images.float()).floor_().mean((2, 3)).unsqueeze(2)
    share = strength.view(-1, 1, 1)
    return (levels(images.device) * share + mean * (1 - share)).clamp_(0, 255)


def posterize_table(bits: Tensor, device: torch.device) -> Tensor:
    """Keep only the highest ``bits`` (N,), int64, of each level: (N, 1, 256)."""
    mask = 256 - (2 ** (8 - bits)).view(-1, 1, 1)
    return (levels(device).long() & mask).float()


def solarize_table(threshold: Tensor, device: torch.device) -> Tensor:
    """Levels from the threshold (N,) on are turned into their negative: (N, 1, 256)."""
    level = levels(device)
    return torch.where(level >= threshold.view(-1, 1, 1), 255 - level, level)


def autocontrast_table(images: Tensor) -> Tensor:
    """Stretch each channel from black to white; a channel of one level stays as it is: (N, C, 256)."""
    flat = images.flatten(2)
    low = flat.amin(2, keepdim=True).float()
    range_ = flat.amax(2, keepdim=True).float() - low
    level = levels(images.device)
    # The same order of operations as torchvision's: a level between two integers must fall to the same side.
    stretched = (level - low) / (range_ * (1 / 255)).clamp(min=1e-12)
    return torch.where(range_ > 0, stretched.clamp_(0, 255), level)


def equalize_table(images: Tensor) -> Tensor:
    """Spread the levels of each channel so that each is about as frequent: (N, C, 256).

    With h the histogram of a channel, s = (pixels - h of its highest level) // 255, level v goes to
    (s // 2 + pixels below v) // s, as in Pillow. Where s is zero, with fewer than 255 pixels below the highest level,
    the channel stays as it is.
    """
    flat = images.flatten(2)
    count, channels, pixels = flat.shape
    row = torch.arange(count * channels, device=images.device).view(count, channels, 1) * 256
    ones = torch.ones((), dtype=torch.int64, device=images.device).expand(flat.numel())
    # One flat index: adding whole numbers, the order does not matter, and a GPU gives the same every time.
    histogram = torch.zeros(count * channels * 256, dtype=torch.int64, device=images.device)
    histogram = histogram.scatter_add_(0, (row + flat.long()).flatten(), ones).view(count, channels, 256)
    highest = histogram.gather(2, flat.amax(2, keepdim=True).long())
    step = (pixels - highest) // 255
    below = histogram.cumsum(2) - histogram
    spread = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255).float()
    return torch.where(step > 0, spread, levels(images.device))
