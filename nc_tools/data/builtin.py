"""Data sets that need no folder: the digits of scikit-learn, and CIFAR through torchvision."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from nc_tools.data.image_set import ImageSet
from nc_tools.data.imbalance import split_holdout

BUILTIN_SPLITS = {
    "digits": "half of each class is for training, the same images for every seed",
    "cifar10": "that of the benchmark",
    "cifar100": "that of the benchmark",
}
"""How each of these sets is split, as text for a sentence."""


def load_builtin(kind: str, path: Path | None) -> tuple[ImageSet, ImageSet]:
    """Load the training and the test set of ``digits``, ``cifar10`` or ``cifar100``.

    Raises:
        FileNotFoundError: If CIFAR is not on disk and cannot be downloaded.
    """
    if kind == "digits":
        return _load_digits()
    from nc_tools.data.cifar import load_cifar

    return load_cifar(kind, path)


def _load_digits() -> tuple[ImageSet, ImageSet]:
    """Load scikit-learn's 1,797 digits of 8 x 8; half of each class is for training, always the same half."""
    digits = _all_digits()
    train, test = split_holdout(digits.labels, 0.5, torch.Generator().manual_seed(0))
    return digits.subset(train), digits.subset(test)  # copies, whatever their owners do with them


@cache  # reading the text file takes .1 s, as long as several epochs
def _all_digits() -> ImageSet:
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = (torch.from_numpy(raw.images).unsqueeze(1) * (255 / 16)).round().to(torch.uint8)
    labels = torch.from_numpy(raw.target).long()
    return ImageSet(images, labels, tuple(str(name) for name in raw.target_names), "digits")


def fit_shape(images: ImageSet, image_size: int | None, channels: int | None) -> ImageSet:
    """Return a set with its images resized (bilinear, antialiased) and converted to 1 or 3 channels.

    Args:
        images: A set with square images.
        image_size: Side in pixels; None keeps it.
        channels: 1 or 3; None keeps them.
    """
    pixels = images.images
    if image_size is not None and image_size != pixels.shape[-1]:
        pixels = F.interpolate(pixels, size=(image_size, image_size), mode="bilinear", antialias=True)
    if channels == 3 and pixels.shape[1] == 1:
        pixels = pixels.repeat(1, 3, 1, 1)
    elif channels == 1 and pixels.shape[1] == 3:
        luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        pixels = (pixels * luma).sum(1, keepdim=True).round().to(torch.uint8)
    return images if pixels is images.images else replace(images, images=pixels)
