"""The image preprocessing of a pretrained backbone: resize, crop and normalize, as the weights were trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class ImagePreprocessing:
    """The preprocessing that a backbone expects: uint8 pixels (N, C, H, W) to normalized floats (N, C, size, size).

    The shorter side is resized to ``resize_size`` with antialiasing, the center of side ``size`` is cropped, and each
    channel becomes (x / 255 - mean) / std. A single gray channel is repeated for each channel of ``mean``.

    Attributes:
        mean: Of each channel, in 0..1.
        std: Of each channel, in 0..1 and positive.
        size: Side of the square input of the network, in pixels.
        resize_size: Length to which the shorter side is resized before the crop, at least ``size``.
        interpolation: "nearest", "bilinear" or "bicubic".
        squash: Resize both sides to ``resize_size``, which changes the aspect ratio of an image that is not square.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> p = ImagePreprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=4, resize_size=6, interpolation="bilinear")
        >>> p(torch.full((2, 1, 9, 7), 255, dtype=torch.uint8)).shape, round(p.crop_fraction, 3)
        (torch.Size([2, 3, 4, 4]), 0.667)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    resize_size: int
    interpolation: Interpolation = "bilinear"
    squash: bool = False

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or not all(0 < s < math.inf for s in self.std):
            raise ValueError(
                f"mean and std of a preprocessing need one value for each channel, std a positive one, got mean "
                f"{self.mean} and std {self.std}"
            )
        if not 1 <= self.size <= self.resize_size:
            raise ValueError(
                f"size and resize_size of a preprocessing are sides in pixels with 1 <= size <= resize_size, got "
                f"{self.size} and {self.resize_size}"
            )
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(
                f"interpolation must be one of {', '.join(get_args(Interpolation))}, got {self.interpolation!r}"
            )

    @property
    def crop_fraction(self) -> float:
        """The side of the crop divided by the side before the crop, ``size / resize_size``: 1 if nothing is cropped."""
        return self.size / self.resize_size

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return len(self.mean)

    def at_size(self, size: int, *, crop_fraction: float | None = None) -> ImagePreprocessing:
        """Return the same preprocessing for another side of the input, and optionally another crop.

        Args:
            size: Side of the network's input in pixels.
            crop_fraction: Share of the side that the crop keeps, in (0, 1]; None for the present share.

        Raises:
            ValueError: If a value is out of its range.

        Example:
            >>> p = ImagePreprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=224, resize_size=256)
            >>> p.at_size(112).resize_size, p.at_size(112, crop_fraction=1.0).resize_size
            (128, 112)
        """
        if crop_fraction is None:
            # In whole numbers, because a quotient of floats can lie just below the exact one.
            return replace(self, size=size, resize_size=max(size, size * self.resize_size // self.size))
        if not 0 < crop_fraction <= 1:
            raise ValueError(f"crop_fraction must be above 0 and at most 1, got {crop_fraction}")
        return replace(self, size=size, resize_size=max(size, math.floor(size / crop_fraction + 1e-6)))

    def geometry(self, images: Tensor) -> Tensor:
        """Resize and crop uint8 images (N, C, H, W) to (N, channels, size, size), uint8."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, self.channels):
            raise ValueError(
                f"images must be uint8 (N, {self.channels}, H, W), or (N, 1, H, W) for gray, got {images.dtype} "
                f"{tuple(images.shape)}: convert them first"
            )
        height, width = images.shape[2:]
        short = min(height, width)
        if self.squash:
            target = (self.resize_size, self.resize_size)
        else:
            target = (self.resize_size * height // short, self.resize_size * width // short)
        if target != (height, width):
            images = _resize(images, target, self.interpolation)
        top, left = round((target[0] - self.size) / 2), round((target[1] - self.size) / 2)
        images = images[..., top : top + self.size, left : left + self.size]
        return images.expand(-1, self.channels, -1, -1)

    def normalize(self, images: Tensor) -> Tensor:
        """Convert uint8 images (N, channels, H, W) to float32: (x / 255 - mean) / std."""
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        scale, shift = ((v.float().view(-1, 1, 1).to(images.device)) for v in (1 / (255 * std), -mean / std))
        return images.to(torch.float32).mul_(scale).add_(shift)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the network's input (N, channels, size, size), float32, for uint8 images (N, C, H, W).

        Raises:
            ValueError: If the images are not uint8 or have another number of channels.
        """
        return self.normalize(self.geometry(images))

    def __str__(self) -> str:
        """Return the preprocessing in one line, as it is printed at the start of a run."""
        crop = f", center {self.size} of {self.resize_size}" if self.size < self.resize_size else ""
        squash = ", both sides to one length" if self.squash else ""
        mean, std = (",".join(f"{v:.3g}" for v in values) for values in (self.mean, self.std))
        return f"{self.size} x {self.size} pixels{crop}, {self.interpolation}{squash}, mean {mean}, std {std}"


def _resize(images: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    mode = InterpolationMode(interpolation)
    resized: Tensor = resize(images, list(size), interpolation=mode, antialias=interpolation != "nearest")
    return resized
