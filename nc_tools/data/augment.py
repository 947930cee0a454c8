"""Augmentation of training images, and the conversion from uint8 pixels to normalized floats.

Every random number is drawn for each sample, and the work is done for the whole batch. Library transforms on a batch
draw once for all of it, so that the samples of a batch would get the same crop; a loop over samples is an order of
magnitude slower (benchmarks/data.py). For crop and flip each sample draws one integer, which selects one of its
possible views, and one copy of memory windows does both together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.data.color_jitter import ColorJitter
from nc_tools.data.cutout import Cutout
from nc_tools.data.data_config import DataConfig
from nc_tools.data.rand_augment import RandAugment
from nc_tools.data.source_names import parse_source
from nc_tools.seeds import stream


@dataclass(frozen=True)
class Augment:
    """The augmentation of training images: random crop and flip, and further operations.

    A view of an image is the image shifted by at most ``padding`` pixels in each direction, mirrored or not.
    RandAugment, color jitter and cutout follow in this order, those that are set.

    Attributes:
        padding: Zeros around the image before the crop, in pixels. As in the usual CIFAR pipeline they are
            added to the raw pixels, so that the border is black and not the mean color.
        flip: Whether half of the views are mirrored left to right.
        rand_augment: Random operations on each image, or None.
        color_jitter: Random colors of each image, or None.
        cutout: A square of each normalized image that is set to zero, or None.

    Raises:
        ValueError: If the padding is not a whole number or negative.

    Example:
        >>> Augment(padding=4, flip=True).views
        162
    """

    padding: int
    flip: bool
    rand_augment: RandAugment | None = None
    color_jitter: ColorJitter | None = None
    cutout: Cutout | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.padding, int) or self.padding < 0:
            raise ValueError(f"padding is a number of pixels and must be a whole number from 0, got {self.padding!r}")

    @property
    def shifts(self) -> int:
        """Number of crop positions along one side."""
        return 2 * self.padding + 1

    @property
    def views(self) -> int:
        """Number of different crops and flips of one image, all equally likely."""
        return self.shifts**2 * (2 if self.flip else 1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw a random view (crop and flip) for each of ``count`` samples, as a number: (count,), int64."""
        return torch.randint(self.views, (count,), generator=generator, device=generator.device)

    @property
    def in_words(self) -> str:
        """The augmentation in words, such as "random crop (padding 4) and flip"."""
        words = [f"random crop (padding {self.padding})"] if self.padding else []
        words += ["flip"] if self.flip else []
        words += [str(operation) for _, _, operation in self._further()]
        return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "no augmentation"

    @property
    def random(self) -> bool:
        """Whether two views of one image can differ."""
        return self.views > 1 or any(True for _ in self._further())

    def draw_further(self, count: int, seed: int, epoch: int, view: int) -> dict[str, Tensor]:
        """Draw the random numbers of the operations after crop and flip for ``count`` samples, by operation name.

        Each operation draws from its own part of the stream "augment", so that adding one does not change the others.

        Args:
            count: N.
            seed: The run's seed.
            epoch: Number of the epoch, from 0.
            view: 0 for the first view of each sample, 1 for the second.

        Returns:
            For each operation a tensor with one row for each sample, as its ``draw`` returns it.
        """
        return {
            name: operation.draw(count, stream(seed, "augment", epoch, view, place))
            for place, name, operation in self._further()
        }

    def _further(self) -> Iterator[tuple[int, str, RandAugment | ColorJitter | Cutout]]:
        operations = {"rand_augment": self.rand_augment, "color_jitter": self.color_jitter, "cutout": self.cutout}
        for place, (name, operation) in enumerate(operations.items(), start=1):
            if operation is not None:
                yield place, name, operation

    def pixels(self, images: Tensor, views: Tensor, further: Mapping[str, Tensor]) -> Tensor:
        """Apply crop, flip, RandAugment and color jitter to raw pixels (N, C, H, W), uint8.

        Args:
            images: (N, C, H, W), uint8.
            views: (N,), as :meth:`draw` returns them.
            further: As :meth:`draw_further` returns them.

        Returns:
            (N, C, H, W), uint8.
        """
        images = augment(images, views, self)
        if self.rand_augment is not None:
            images = self.rand_augment.apply(images, further["rand_augment"])
        if self.color_jitter is not None:
            images = self.color_jitter.apply(images, further["color_jitter"])
        return images


def augment_for(config: DataConfig, image_size: int) -> Augment:
    """Return the augmentation that a DataConfig describes, for images of a given side.

    If the configuration leaves them open, the padding is an eighth of the side (4 at 32 pixels, 1 at 8), and images are
    flipped unless they are digits: a mirrored digit is not a digit.

    Example:
        >>> augment_for(DataConfig(), image_size=8)
        Augment(padding=1, flip=False, rand_augment=None, color_jitter=None, cutout=None)
    """
    padding = max(1, image_size // 8) if config.crop_padding is None else config.crop_padding
    flip = parse_source(config.source).kind != "digits" if config.flip is None else config.flip
    return Augment(
        padding=padding,
        flip=flip,
        rand_augment=config.rand_augment,
        color_jitter=config.color_jitter,
        cutout=config.cutout,
    )


def augment(images: Tensor, views: Tensor, options: Augment) -> Tensor:
    """Crop and flip each image by its own view number.

    With s = 2 padding + 1, view ``v`` of an image stands for

        (flipped, top, left) = (v // s^2, v // s mod s, v mod s):

    the image is mirrored if flipped, padded with zeros, and cropped at (top, left). The batch is padded once plain
    and once mirrored; every crop of it is then a strided window that starts at one memory offset, and selecting N
    offsets copies whole rows. At 32 x 32 that copy takes a sixth of the time of an advanced index, and the same
    code runs on a GPU.

    Args:
        images: (N, C, H, W), uint8 or any other type.
        views: (N,) int64 on the same device, each in [0, options.views), as ``options.draw`` returns them.
        options: Padding and flip.

    Returns:
        (N, C, H, W), contiguous, of the same type.

    Raises:
        ValueError: If the number of views differs from the number of images.

    Example:
        >>> images = torch.arange(1, 5, dtype=torch.uint8).view(1, 1, 2, 2)
        >>> augment(images, torch.tensor([8]), Augment(padding=1, flip=False)).tolist()
        [[[[4, 0], [0, 0]]]]
    """
    if views.shape != images.shape[:1]:
        raise ValueError(f"each image needs one view number, got views {tuple(views.shape)} for {len(images)} images")
    if (options.padding == 0 and not options.flip) or len(images) == 0:
        return images.contiguous()
    count, channels, height, width = images.shape
    pad, shifts, sides = options.padding, 2 * options.padding + 1, 2 if options.flip else 1
    padded = images.new_zeros(sides, count, channels, height + 2 * pad, width + 2 * pad)
    inside = padded[..., pad : pad + height, pad : pad + width]
    inside[0] = images
    if options.flip:
        inside[1] = images.flip(3)
    _, block, plane, row, _ = padded.stride()
    last = (sides * count - 1) * block + 2 * pad * (row + 1)
    windows = padded.as_strided((last + 1, channels, height, width), (1, plane, row, 1))
    flipped, top, left = views // shifts**2, views // shifts % shifts, views % shifts
    sample = torch.arange(count, device=views.device)
    return windows.index_select(0, (flipped * count + sample) * block + top * row + left)


class Normalize:
    """Convert uint8 pixels to float32 inputs: (x / 255 - mean) / std for each channel.

    Args:
        mean: (C,), in 0..1.
        std: (C,), in 0..1 and positive.
        device: Where the images are.
        channels_last: Use the memory layout (N, H, W, C), which is faster for convolutions on a GPU.

    Raises:
        ValueError: If mean and std have different lengths or a std is not positive.

    Example:
        >>> images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
        >>> Normalize([0.5], [0.5])(images).flatten().tolist()
        [-1.0, 1.0]
    """

    def __init__(
        self,
        mean: Tensor | Sequence[float],
        std: Tensor | Sequence[float],
        *,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
    ) -> None:
        center, spread = torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(std, dtype=torch.float64)
        if center.shape != spread.shape or center.dim() != 1:
            raise ValueError(
                f"mean and std must both have the shape (C,), got {tuple(center.shape)} and {tuple(spread.shape)}"
            )
        if not bool((spread > 0).all()):
            raise ValueError(f"std must be positive in every channel, got {spread.tolist()}")
        self._scale = (1 / (255 * spread)).float().view(-1, 1, 1).to(device)
        self._shift = (-center / spread).float().view(-1, 1, 1).to(device)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, images: Tensor) -> Tensor:
        """Return the normalized images (N, C, H, W), float32."""
        # Two passes in place beat one addcmul: with two broadcast operands its kernel is not vectorized.
        return images.to(torch.float32, memory_format=self._layout).mul_(self._scale).add_(self._shift)
