"""RandAugment on batches: each image draws its own operations, and images with the same draw are changed together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Operations by their number in a draw.
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "contrast", "posterize", "solarize", "autocontrast", "equalize",
    "color", "sharpness",
)  # fmt: skip
_MAX_MAGNITUDE = 30
# At the largest magnitude: tangent of a shear, shift as a share of the side, degrees, change of the blend, lost bits.
_SHEAR, _SHIFT, _DEGREES, _BLEND, _BITS = 0.3, 150 / 331, 30.0, 0.9, 4


@dataclass(frozen=True)
class RandAugment:
    """Apply random operations to each image, all at one magnitude.

    A strong augmentation with two numbers to tune. With m = magnitude / 30, each operation is one of these, with equal
    probability:

    ===================  =======================================================
    identity             no change
    shear_x, shear_y     by a tangent of +-.3 m, with the upper left corner fixed
    translate_x, _y      by +-.453 m of the side, in whole pixels
    rotate               by +-30 m degrees around the center
    brightness           blended with black by 1 +- .9 m
    contrast             blended with the mean luma by 1 +- .9 m
    color                blended with the luma by 1 +- .9 m
    sharpness            blended with a blurred copy by 1 +- .9 m
    posterize            to 8 - 4 m bits, rounded
    solarize             levels from 255 (1 - m) on are inverted
    autocontrast         each channel stretched from black to white
    equalize             the histogram of each channel made flat
    ===================  =======================================================

    Source: Cubuk et al. 2020, section 3. The operations, their ranges, the nearest-pixel geometry and the functions
    that compute them are those of torchvision's ``RandAugment``. Difference: on a batch torchvision draws once for all
    images, and here each image draws its own. The order of drawing differs too, so that the same seed gives other
    pictures than torchvision, from the same distribution.

    Attributes:
        operations: Number of operations for each image, one after the other.
        magnitude: From 0 to 30, the same for all images and operations.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> augment = RandAugment()
        >>> draws = augment.draw(3, torch.Generator().manual_seed(0))
        >>> augment.apply(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), draws).shape
        torch.Size([3, 3, 8, 8])
    """

    operations: int = 2
    magnitude: float = 9.0

    def __post_init__(self) -> None:
        if self.operations < 1:
            raise ValueError(
                f"RandAugment needs at least 1 operation, got {self.operations}: set rand_augment=None to switch it off"
            )
        if not 0 <= self.magnitude <= _MAX_MAGNITUDE:
            raise ValueError(
                f"magnitude of RandAugment must lie in 0 to {_MAX_MAGNITUDE}, got {self.magnitude}: 9 is usual"
            )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the operations and signs of ``count`` images: 2 * number + (sign > 0), (count, operations), int64."""
        return torch.randint(2 * len(OPERATIONS), (count, self.operations), generator=generator)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the images after their operations.

        Args:
            images: (N, C, H, W), uint8, of 1 or 3 channels.
            draws: (N, operations), int64, on the same device.

        Returns:
            (N, C, H, W), uint8.
        """
        for column in draws.unbind(1):
            images = apply_operations(images, column, self.magnitude / _MAX_MAGNITUDE)
        return images


def apply_operations(images: Tensor, draws: Tensor, size: float) -> Tensor:
    """Apply one operation to each image.

    The magnitude is the same for all images, so that one call of torchvision's function changes all images with the
    same operation and sign.

    Args:
        images: (N, C, H, W), uint8.
        draws: 2 * number + (sign > 0) of each image (N,), int64; the number is a position in ``OPERATIONS``.
        size: Magnitude in [0, 1].

    Returns:
        (N, C, H, W), uint8.
    """
    result = images.clone()
    for draw in sorted(set(draws.tolist())):
        rows = (draws == draw).nonzero().flatten()
        result[rows] = _operation(images[rows], OPERATIONS[draw // 2], size, 1 if draw % 2 else -1)
    return result


def _operation(images: Tensor, name: str, size: float, sign: int) -> Tensor:
    """Apply one operation to all images, by torchvision's function on uint8."""
    from torchvision.transforms.v2 import functional as F

    height, width = images.shape[2:]
    shear = math.degrees(math.atan(sign * _SHEAR * size))
    blend = 1 + sign * _BLEND * size
    plain = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    operations: dict[str, Callable[[], Tensor]] = {
        "identity": lambda: images,
        "shear_x": lambda: F.affine(images, **plain | {"shear": [shear, 0.0], "center": [0, 0]}),
        "shear_y": lambda: F.affine(images, **plain | {"shear": [0.0, shear], "center": [0, 0]}),
        "translate_x": lambda: F.affine(images, **plain | {"translate": [sign * int(_SHIFT * size * width), 0]}),
        "translate_y": lambda: F.affine(images, **plain | {"translate": [0, sign * int(_SHIFT * size * height)]}),
        "rotate": lambda: F.rotate(images, sign * _DEGREES * size),
        "brightness": lambda: F.adjust_brightness(images, blend),
        "contrast": lambda: F.adjust_contrast(images, blend),
        "posterize": lambda: F.posterize(images, round(8 - _BITS * size)),
        "solarize": lambda: F.solarize(images, 255 * (1 - size)),
        "autocontrast": lambda: F.autocontrast(images),
        "equalize": lambda: F.equalize(images),
        "color": lambda: F.adjust_saturation(images, blend),
        "sharpness": lambda: F.adjust_sharpness(images, blend),
    }
    return operations[name]()
