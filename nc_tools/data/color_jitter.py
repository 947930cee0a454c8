"""Colors of each image of a batch by a strength of its own: brightness, contrast, saturation, hue, sharpness.

Functions take float32 pixels (N, C, H, W) in 0..255 and strengths (N,), and agree image by image with those of
``torchvision.transforms.v2.functional`` on images of floats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Weights of red, green and blue in the light that the eye sees: ITU-R BT.601.
_LUMA = (0.2989, 0.587, 0.114)


def gray(pixels: Tensor) -> Tensor:
    """Return the luma (N, 1, H, W); what is not red, green and blue is averaged over its channels."""
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    red, green, blue = pixels.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).unsqueeze(1)


def blend(base: Tensor, pixels: Tensor, strength: Tensor) -> Tensor:
    """Return base + strength (pixels - base), kept in 0..255: 0 is the base, 1 the picture, more is beyond it."""
    share = per_image(strength)
    return (pixels * share + base * (1 - share)).clamp_(0, 255)


def per_image(values: Tensor) -> Tensor:
    """Shape (N,) as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def brightness(pixels: Tensor, strength: Tensor) -> Tensor:
    """Blend with black.

    Example:
        >>> brightness(torch.full((1, 1, 1, 1), 100.0), torch.tensor([1.5])).item()
        150.0
    """
    return (pixels * per_image(strength)).clamp_(0, 255)


def contrast(pixels: Tensor, strength: Tensor) -> Tensor:
    """Blend with the mean of the image's luma."""
    return blend(gray(pixels).mean((1, 2, 3), keepdim=True), pixels, strength)


def saturation(pixels: Tensor, strength: Tensor) -> Tensor:
    """Blend with the luma; images without color stay as they are."""
    return pixels if pixels.shape[1] != 3 else blend(gray(pixels), pixels, strength)


def hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by a share of the color circle, in [-1/2, 1/2]; images without color stay as they are."""
    if pixels.shape[1] != 3:
        return pixels
    value, brightest = pixels.max(1)
    chroma = value - pixels.amin(1)
    red, green, blue = pixels.unbind(1)
    # Sixths of the circle: where the brightest channel stands, and how far the others pull from there.
    pulls = torch.stack([green - blue, blue - red, red - green], 1).gather(1, brightest.unsqueeze(1)).squeeze(1)
    sixths = pulls / chroma.clamp(min=torch.finfo(chroma.dtype).tiny) + 2 * brightest
    sixths = sixths + 6 * turn.view(-1, 1, 1)

    def channel(offset: int) -> Tensor:
        k = (sixths + offset) % 6
        return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], 1)


def blurred(pixels: Tensor) -> Tensor:
    """Return a 3 x 3 mean with weight 5 of 13 on the center; the border stays as it is."""
    if min(pixels.shape[2:]) < 3:
        return pixels
    # Sums of neighbors: a convolution of each channel on its own takes several times as long on a CPU.
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    block = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    result = pixels.clone()
    result[..., 1:-1, 1:-1] = (block + 4 * pixels[..., 1:-1, 1:-1]) / 13
    return result


def sharpness(pixels: Tensor, strength: Tensor) -> Tensor:
    """Blend with a blurred copy."""
    return blend(blurred(pixels), pixels, strength)


@dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast, saturation and hue, drawn for each image.

    Strengths are uniform in [max(0, 1 - s), 1 + s], the turn of the hue in [-hue, hue] of the color circle. Always in
    this order, where torchvision's ``ColorJitter`` draws the order too, and rounded once at the end instead of after
    each part. Images of one channel have brightness and contrast alone.

    Attributes:
        brightness: s of the brightness, not negative.
        contrast: s of the contrast.
        saturation: s of the saturation.
        hue: Largest turn, in [0, 1/2]; 0 for none.

    Raises:
        ValueError: If a strength is negative or the turn more than half of the circle.

    Example:
        >>> how = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)
        >>> drawn = how.draw(2, torch.Generator().manual_seed(0))
        >>> how.apply(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), drawn).dtype
        torch.uint8
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} of a color jitter must not be negative, got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is a share of the color circle in [0, 0.5], got {self.hue}")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw three strengths and a turn for each of ``count`` images (count, 4), float32."""
        spread = [self.brightness, self.contrast, self.saturation]
        low = torch.tensor([*(max(0.0, 1 - s) for s in spread), -self.hue])
        high = torch.tensor([*(1 + s for s in spread), self.hue])
        return low + (high - low) * torch.rand(count, 4, generator=generator)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Return the images with their colors changed.

        Args:
            images: (N, C, H, W), uint8.
            drawn: (N, 4), on the same device.

        Returns:
            (N, C, H, W), uint8.
        """
        pixels = images.float()
        strengths = drawn.unbind(1)
        parts = (brightness, contrast, saturation, hue)
        sizes = (self.brightness, self.contrast, self.saturation, self.hue)
        for part, size, strength in zip(parts, sizes, strengths, strict=True):
            if size:
                pixels = part(pixels, strength)
        return pixels.round_().to(torch.uint8)
