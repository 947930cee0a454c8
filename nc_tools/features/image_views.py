"""Views of images for features that are computed once: the image itself, and random augmentations of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.data import DataConfig
from nc_tools.data.augment import Augment, augment_for
from nc_tools.seeds import stream, stream_seed

_DIGEST = 32  # bytes of a SHA-256


@dataclass(frozen=True)
class ImageViews:
    """The views of each image that a backbone computes features of.

    View 0 is the image itself, without augmentation. The random numbers of every further view depend on the content of
    the image, the number of the view and the seed alone: not on the other images, their order, or how often the
    computation was interrupted. So a cache of four views serves for two, and for the first four of eight.

    Attributes:
        count: Number of views of each image, V.
        augment: The augmentation of the views 1 to V - 1; not needed for one view.
        seed: Other seeds give other augmentations.

    Raises:
        ValueError: If there is no view, or further views have no random augmentation.

    Example:
        >>> ImageViews(4, Augment(padding=4, flip=True)).count
        4
    """

    count: int = 1
    augment: Augment | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"there must be at least 1 view of each image, got {self.count}")
        if self.count > 1 and (self.augment is None or not self.augment.random):
            raise ValueError(
                f"{self.count} views of an image need random augmentation, without which they are equal, got "
                f"{self.augment}: set its padding or flip (data.crop_padding, data.flip), or use 1 view"
            )

    def digests(self, images: Tensor) -> Tensor:
        """Return the digest of every view of every image (N V, 32), uint8, by which a cache finds its features.

        Args:
            images: The SHA-256 of each image (N, 32), uint8; it is the digest of view 0.
        """
        if self.count == 1 or self.augment is None:
            return images
        described = {"augment": dataclasses.asdict(self.augment), "seed": self.seed}
        ends = [json.dumps({**described, "view": v}, sort_keys=True).encode() for v in range(1, self.count)]
        packed, parts = images.contiguous().numpy().tobytes(), []
        for at in range(0, len(packed), _DIGEST):
            image = packed[at : at + _DIGEST]
            parts += [image, *(hashlib.sha256(image + end).digest() for end in ends)]
        return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8).view(-1, _DIGEST)

    def pixels(self, images: Tensor, digests: Tensor, view: Tensor) -> Tensor:
        """Return views of images, before they are resized for the network.

        Args:
            images: (B, C, H, W), uint8.
            digests: The SHA-256 of each image (B, 32).
            view: The view to make of each (B,), int64.

        Returns:
            (B, C, H, W), uint8.
        """
        changed = view.nonzero().flatten()
        if self.augment is None or not len(changed):
            return images
        crops, further = self._draw(self.augment, digests[changed], view[changed])
        images = images.clone()
        images[changed] = self.augment.pixels(images[changed], crops, further)
        return images

    def inputs(self, inputs: Tensor, digests: Tensor, view: Tensor) -> Tensor:
        """Return views of normalized images: what an augmentation does to the input of the network, which is cutout.

        Args:
            inputs: (B, C, H, W), float32, of what :meth:`pixels` returned.
            digests: The SHA-256 of each image (B, 32).
            view: The view that each is (B,), int64.
        """
        changed = view.nonzero().flatten()
        if self.augment is None or self.augment.cutout is None or not len(changed):
            return inputs
        _, further = self._draw(self.augment, digests[changed], view[changed])
        draws, changed = further["cutout"].to(inputs.device), changed.to(inputs.device)
        return inputs.index_copy(0, changed, self.augment.cutout.apply(inputs[changed], draws))

    def _draw(self, augment: Augment, digests: Tensor, view: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the crop and flip of each view (B,), and the draws of each further operation (B, ...) by its name."""
        crops, further = [], []
        for digest, number in zip(digests, view.tolist(), strict=True):
            image = int.from_bytes(digest[:8].numpy().tobytes(), "big")
            own = stream_seed(self.seed, "augment", number, image)
            crops.append(augment.draw(1, stream(own, "augment")))
            further.append(augment.draw_further(1, own, 0, 0))
        return torch.cat(crops), {name: torch.cat([draws[name] for draws in further]) for name in further[0]}

    def __str__(self) -> str:
        """Return the views in words, as they are printed at the start of a comparison."""
        if self.augment is None or self.count == 1:
            return "the image itself"
        further = "1 view" if self.count == 2 else f"{self.count - 1} views"
        return f"the image itself and {further} with {self.augment.in_words}"


def image_views(config: DataConfig, image_size: int) -> ImageViews:
    """Return the views that a DataConfig describes, for images of a given side.

    Raises:
        ValueError: If it has several views and no random augmentation.
    """
    return ImageViews(config.views, augment_for(config, image_size) if config.views > 1 else None)
