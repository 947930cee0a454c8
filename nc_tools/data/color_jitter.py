"""Random brightness, contrast, saturation and hue, with a different strength for each image of a batch.

The functions take float32 pixels (N, C, H, W) in 0..255 and strengths (N,). For each image they agree with the function
of the same meaning in ``torchvision.transforms.v2.functional``, which takes one strength for the whole batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Weights of red, green and blue in the luma: ITU-R BT.601.
_LUMA = (0.2989, 0.587, 0.114)


def luma(pixels: Tensor) -> Tensor:
    """Return the luma of RGB images, or the mean over the channels of other images: (N, 1, H, W)."""
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    red, green, blue = pixels.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).unsqueeze(1)


def blend(base: Tensor, pixels: Tensor, strength: Tensor) -> Tensor:
    """Return base + strength * (pixels - base), clipped to 0..255: strength 0 gives the base, 1 the pixels."""
    share = per_image(strength)
    return (pixels * share + base * (1 - share)).clamp_(0, 255)


def per_image(values: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def brightness(pixels: Tensor, strength: Tensor) -> Tensor:
    """Change the brightness of each image by blending it with black.

    Example:
        >>> brightness(torch.full((1, 1, 1, 1), 100.0), torch.tensor([1.5])).item()
        150.0
    """
    return (pixels * per_image(strength)).clamp_(0, 255)


def contrast(pixels: Tensor, strength: Tensor) -> Tensor:
    """Change the contrast of each image by blending it with its mean luma."""
    return blend(luma(pixels).mean((1, 2, 3), keepdim=True), pixels, strength)


def saturation(pixels: Tensor, strength: Tensor) -> Tensor:
    """Change the saturation of RGB images by blending them with their luma; other images stay as they are."""
    return pixels if pixels.shape[1] != 3 else blend(luma(pixels), pixels, strength)


def hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hue of RGB images by a fraction of the color circle, in [-1/2, 1/2]; others stay as they are."""
    if pixels.shape[1] != 3:
        return pixels
    value, brightest = pixels.max(1)
    chroma = value - pixels.amin(1)
    red, green, blue = pixels.unbind(1)
    # The hue in sixths of the circle: the position of the brightest channel, plus an offset from the other two.
    offsets = torch.stack([green - blue, blue - red, red - green], 1).gather(1, brightest.unsqueeze(1)).squeeze(1)
    sixths = offsets / chroma.clamp(min=torch.finfo(chroma.dtype).tiny) + 2 * brightest
    sixths = sixths + 6 * turn.view(-1, 1, 1)

    def channel(offset: int) -> Tensor:
        k = (sixths + offset) % 6
        return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], 1)


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue of each image at random.

    Strengths are uniform in [max(0, 1 - s), 1 + s], and the hue is rotated by a uniform fraction in [-hue, hue] of the
    color circle. The order is always this one, while torchvision's ``ColorJitter`` draws it, and pixels are rounded
    once at the end instead of after each change. For images of one channel only brightness and contrast change.

    Attributes:
        brightness: s of the brightness, not negative.
        contrast: s of the contrast, not negative.
        saturation: s of the saturation, not negative.
        hue: Largest rotation of the hue, in [0, 1/2]; 0 for none.

    Raises:
        ValueError: If a strength is negative or the rotation is more than half of the circle.

    Example:
        >>> jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)
        >>> draws = jitter.draw(2, torch.Generator().manual_seed(0))
        >>> jitter.apply(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), draws).dtype
        torch.uint8
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} of ColorJitter must be finite and not negative, got {getattr(self, name)}: 0.4 is usual"
                )
        if not 0 <= self.hue <= 0.5:
            raise ValueError(
                f"hue of ColorJitter is a fraction of the color circle and must lie in [0, 0.5], got {self.hue}"
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw three random strengths and a hue rotation for each of ``count`` images: (count, 4), float32."""
        spread = [self.brightness, self.contrast, self.saturation]
        low = torch.tensor([*(max(0.0, 1 - s) for s in spread), -self.hue])
        high = torch.tensor([*(1 + s for s in spread), self.hue])
        return low + (high - low) * torch.rand(count, 4, generator=generator)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the images with changed colors.

        Args:
            images: (N, C, H, W), uint8.
            draws: (N, 4), on the same device, as :meth:`draw` returns them.

        Returns:
            (N, C, H, W), uint8.
        """
        pixels = images.float()
        changes = (brightness, contrast, saturation, hue)
        sizes = (self.brightness, self.contrast, self.saturation, self.hue)
        for change, size, strength in zip(changes, sizes, draws.unbind(1), strict=True):
            if size:
                pixels = change(pixels, strength)
        return pixels.round_().to(torch.uint8)
