"""RandAugment on a batch: each image gets operations of its own, and the batch is worked on as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nc_tools.data.color_jitter import blend, blurred, gray
from nc_tools.data.level_tables import (
    autocontrast_table,
    brightness_table,
    contrast_table,
    equalize_table,
    levels,
    look_up,
    posterize_table,
    solarize_table,
)

# What an image may be given, by its number in a draw.
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "contrast", "posterize", "solarize", "autocontrast", "equalize",
    "color", "sharpness",
)  # fmt: skip
_NUMBER = {name: number for number, name in enumerate(OPERATIONS)}
_LARGEST = 30
# At the largest magnitude: tangent of a shear, share of the side in a shift, degrees, blend beyond or below 1, bits.
_SHEAR, _SHIFT, _DEGREES, _BLEND, _BITS = 0.3, 150 / 331, 30.0, 0.9, 4


@dataclass(frozen=True)
class RandAugment:
    """So many random operations on each image, all at one magnitude.

    A strong augmentation with two numbers to tune. With m = magnitude / 30, one of these, all alike:

    ===================  =======================================================
    identity             nothing
    shear_x, shear_y     by a tangent of +-.3 m, the upper left corner staying
    translate_x, _y      by +-.453 m of the side, in whole pixels
    rotate               by +-30 m degrees around the center
    brightness,          blended by 1 +- .9 m with black, with the mean luma,
    contrast, color,    with the luma, with a blurred copy
    sharpness
    posterize            to 8 - 4 m bits, rounded
    solarize             levels from 255 (1 - m) on turned into their negative
    autocontrast         each channel stretched from black to white
    equalize             each channel's histogram made flat
    ===================  =======================================================

    Source: Cubuk et al. 2020, section 3, with the operations, ranges and nearest-pixel geometry of torchvision's
    ``RandAugment``. Differences: each image of a batch draws its own operations and signs; what moves in from outside
    is black; the list has torchvision's 14 operations, those of the paper. Their order of drawing differs, so one seed
    gives other pictures than torchvision, from the same distribution.

    Attributes:
        operations: How many one after the other on each image.
        magnitude: From 0 to 30, the same for all.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> how = RandAugment()
        >>> drawn = how.draw(3, torch.Generator().manual_seed(0))
        >>> how.apply(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), drawn).shape
        torch.Size([3, 3, 8, 8])
    """

    operations: int = 2
    magnitude: float = 9.0

    def __post_init__(self) -> None:
        if self.operations < 1:
            raise ValueError(f"RandAugment needs at least 1 operation, got {self.operations}: None is no augmentation")
        if not 0 <= self.magnitude <= _LARGEST:
            raise ValueError(f"RandAugment's magnitude lies in 0 to {_LARGEST}, got {self.magnitude}: 9 is usual")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw operations and signs for each of ``count`` images (count, operations), int64: 2 number + (sign > 0)."""
        return torch.randint(2 * len(OPERATIONS), (count, self.operations), generator=generator)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Return the images after their operations.

        Args:
            images: (N, C, H, W), uint8.
            drawn: (N, operations), int64, on the same device.

        Returns:
            (N, C, H, W), uint8.
        """
        for column in drawn.unbind(1):
            images = operate(images, column // 2, column % 2 * 2 - 1, self.magnitude / _LARGEST)
        return images


def operate(images: Tensor, number: Tensor, sign: Tensor, size: float) -> Tensor:
    """Do one operation on each image.

    There are three kinds: geometry, a table of levels, a blend. Each is one pass over the batch in which images whose
    operation is of another kind keep their pixels, so no loop runs over samples and nothing depends on values.

    Args:
        images: (N, C, H, W), uint8.
        number: Which of ``OPERATIONS`` (N,), int64.
        sign: (N,), -1 or 1.
        size: Magnitude in [0, 1].

    Returns:
        (N, C, H, W), uint8.
    """
    return _blended(look_up(_moved(images, number, sign, size), _table(images, number, sign, size)), number, sign, size)


def _moved(images: Tensor, number: Tensor, sign: Tensor, size: float) -> Tensor:
    """Shear, shift or rotate; the nearest pixel, black from outside."""
    height, width = images.shape[2:]

    def where(name: str, amount: float | Tensor) -> Tensor:
        return torch.where(number == _NUMBER[name], sign * amount, 0.0)

    shear_x, shear_y = where("shear_x", _SHEAR * size), where("shear_y", _SHEAR * size)
    shift_x = where("translate_x", float(int(_SHIFT * size * width)))
    shift_y = where("translate_y", float(int(_SHIFT * size * height)))
    angle = where("rotate", _DEGREES * size).deg2rad()
    # Where each pixel comes from, in pixels from the center: x' = a x + b y + c, y' = d x + e y + f. Shears hold the
    # upper left corner, at (-width / 2, -height / 2).
    cos, sin = angle.cos(), angle.sin()
    rows = (
        torch.stack([cos, shear_x - sin, shear_x * height / 2 - shift_x], 1),
        torch.stack([shear_y + sin, cos, shear_y * width / 2 - shift_y], 1),
    )
    theta = torch.stack([rows[0] / (width / 2), rows[1] / (height / 2)], 2)
    x = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=images.device)
    y = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=images.device)
    columns, lines = x.expand(height, width), y.unsqueeze(1).expand(height, width)
    plane = torch.stack([columns, lines, torch.ones_like(columns)], 2)
    grid = (plane.view(1, -1, 3) @ theta).view(-1, height, width, 2)
    # Images of another operation have the identity for a grid; the nearest pixel is each pixel itself.
    return nn.functional.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


def _table(images: Tensor, number: Tensor, sign: Tensor, size: float) -> Tensor:
    """Return each image's table of levels (N, C, 256), uint8."""
    device = images.device
    strength = 1 + sign * (_BLEND * size)
    bits = torch.full_like(number, round(8 - _BITS * size))
    threshold = torch.full(number.shape, 255 * (1 - size), device=device)
    table = levels(device).expand(*images.shape[:2], 256)
    for name, candidate in (
        ("brightness", brightness_table(strength, device)),
        ("contrast", contrast_table(images, strength)),
        ("posterize", posterize_table(bits, device)),
        ("solarize", solarize_table(threshold, device)),
        ("autocontrast", autocontrast_table(images)),
        ("equalize", equalize_table(images)),
    ):
        table = torch.where((number == _NUMBER[name]).view(-1, 1, 1), candidate, table)
    return table.to(torch.uint8)


def _blended(images: Tensor, number: Tensor, sign: Tensor, size: float) -> Tensor:
    """Blend with the luma or with a blurred copy."""
    pixels = images.float()
    faded = number == _NUMBER["color"] if images.shape[1] == 3 else torch.zeros_like(number, dtype=torch.bool)
    softened = number == _NUMBER["sharpness"]
    base = torch.where(faded.view(-1, 1, 1, 1), gray(pixels).floor_(), blurred(pixels).round_())
    strength = torch.where(faded | softened, 1 + sign * (_BLEND * size), 1.0)
    return blend(base, pixels, strength).to(torch.uint8)
