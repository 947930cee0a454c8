"""Make a multi-label set from a single-label one: two images side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.data.image_set import ImageSet


def side_by_side(images: ImageSet, count: int, generator: torch.Generator) -> tuple[ImageSet, Tensor]:
    """Return images that each show two images of a set side by side, with the classes of both as tags.

    A small set for trying multi-label losses; with the digits it needs no download. The two images of a pair are drawn
    independently, so that about one pair in K shows a class twice and has one tag. The results are square, as backbones
    expect, and black above and below the pair.

    Args:
        images: Images of one class each. Pair training and test images separately.
        count: N, the number of pairs.
        generator: Draws the pairs.

    Returns:
        The images, labeled with the class on the left, and their tags (N, K), bool, for ``BatchOptions.tags``.

    Raises:
        ValueError: If ``count`` is not positive.

    Example:
        >>> pixels = torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1)
        >>> images = ImageSet(pixels, torch.arange(2), classes=("zero", "one"), name="two")
        >>> pairs, tags = side_by_side(images, 4, torch.Generator().manual_seed(0))
        >>> pairs.shape, tags.shape
        ((1, 2, 2), torch.Size([4, 2]))
    """
    if count < 1:
        raise ValueError(f"count, the number of pairs, must be at least 1, got {count}")
    left, right = torch.randint(len(images), (2, count), generator=generator)
    row = torch.cat([images.take(left), images.take(right)], dim=3)
    height, width = row.shape[2:]
    side = max(height, width)
    top = (side - height) // 2
    canvas = row.new_zeros(count, row.shape[1], side, side)
    canvas[:, :, top : top + height, :width] = row
    tags = torch.zeros(count, images.num_classes, dtype=torch.bool)
    rows = torch.arange(count)
    tags[rows, images.labels[left]] = True
    tags[rows, images.labels[right]] = True
    return ImageSet(canvas, images.labels[left], images.classes, f"{images.name} side by side"), tags
