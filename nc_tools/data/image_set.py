"""Labeled image sets with one interface: pixels in memory, or files that are decoded when they are needed.

Both have ``len``, ``take(index)`` for a uint8 batch, ``subset(indices)``, labels, class names and paths. ``pixel_sums``
and ``digests`` are computed for each image, so that mean, standard deviation and fingerprint of a set are the same for
both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """An image set with its pixels in memory.

    Attributes:
        images: (N, C, H, W), uint8.
        labels: (N,), int64, in [0, K).
        classes: K names.
        name: Name of the set in records.
        clean_labels: The true labels (N,), if they are known and may differ from ``labels``; or None. They are used
            for measures only: nothing may be chosen by them.
        paths: Relative to the data root, with forward slashes; None if the set has no files.
        groups: The number of each image's group (N,), int64, such as its patient; None without groups.
        hashes: (N, 32), as :func:`digests` returns them, if they are known already; else they are computed when needed.

    Raises:
        ValueError: If shapes, types or labels do not match.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    clean_labels: Tensor | None = None
    paths: tuple[str, ...] | None = None
    groups: Tensor | None = None
    hashes: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(f"images must be uint8 (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}")
        _check_labels(self.labels, len(self.images), len(self.classes))
        if self.clean_labels is not None:
            _check_labels(self.clean_labels, len(self.images), len(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, index: Tensor) -> Tensor:
        """Return the images at ``index`` (B,), as uint8 (B, C, H, W)."""
        return self.images.index_select(0, index)

    def subset(self, indices: Tensor) -> ImageSet:
        """Return the set of the samples at ``indices`` (M,), in that order."""
        return replace(
            self,
            images=self.images.index_select(0, indices),
            labels=self.labels[indices],
            clean_labels=None if self.clean_labels is None else self.clean_labels[indices],
            paths=_pick(self.paths, indices),
            groups=None if self.groups is None else self.groups[indices],
            hashes=None if self.hashes is None else self.hashes[indices],
        )

    def pixel_sums(self) -> Tensor:
        """Return the exact sum and sum of squares of the pixels of each image and channel: (N, C, 2), int64."""
        return torch.cat([pixel_sums(chunk) for chunk in torch.split(self.images, 1024)])

    def digests(self) -> Tensor:
        """Return the SHA-256 of each image's pixels (N, 32), uint8."""
        return digests(self.images) if self.hashes is None else self.hashes


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """An image set of files that are decoded when they are needed; statistics come from one pass over the files.

    Attributes:
        root: Folder that the paths are relative to.
        paths: N paths with forward slashes.
        labels: (N,), int64, in [0, K).
        classes: K names.
        name: Name of the set in records.
        channels: 3, or 1 for gray.
        image_size: Side in pixels after decoding.
        sums: (N, C, 2), as ``pixel_sums`` returns them.
        hashes: (N, 32), as ``digests`` returns them.
        clean_labels: The true labels (N,), as for ``ImageSet``, or None.
        groups: The number of each image's group (N,), int64, or None.
        interpolation: How files are resized when they are decoded.

    Raises:
        ValueError: If the labels do not match the files or the classes.
    """

    root: Path
    paths: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    channels: int
    image_size: int
    sums: Tensor
    hashes: Tensor
    clean_labels: Tensor | None = None
    groups: Tensor | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        _check_labels(self.labels, len(self.paths), len(self.classes))
        if self.clean_labels is not None:
            _check_labels(self.clean_labels, len(self.paths), len(self.classes))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of every image."""
        return self.channels, self.image_size, self.image_size

    def take(self, index: Tensor, *, in_process: bool = False, pinned: bool = False) -> Tensor:
        """Decode the images at ``index`` (B,) into uint8 (B, C, H, W).

        Args:
            index: Positions in the set.
            in_process: Decode in the process that belongs to this thread of the decoding pool.
            pinned: Use page-locked memory, from which a GPU copies without waiting.

        Raises:
            UnreadableImageError: If a file has become unreadable since the set was loaded.
        """
        from nc_tools.data.decode import decode_batch

        paths = [self.paths[i] for i in index.tolist()]
        return decode_batch(
            self.root, paths, self.image_size, self.channels, self.interpolation, in_process=in_process, pinned=pinned
        )

    def subset(self, indices: Tensor) -> ImageFiles:
        """Return the set of the samples at ``indices`` (M,), in that order."""
        return replace(
            self,
            paths=tuple(self.paths[i] for i in indices.tolist()),
            labels=self.labels[indices],
            sums=self.sums[indices],
            hashes=self.hashes[indices],
            clean_labels=None if self.clean_labels is None else self.clean_labels[indices],
            groups=None if self.groups is None else self.groups[indices],
        )

    def pixel_sums(self) -> Tensor:
        """Return the exact sum and sum of squares of the pixels of each image and channel: (N, C, 2), int64."""
        return self.sums

    def digests(self) -> Tensor:
        """Return the SHA-256 of each image's pixels (N, 32), uint8."""
        return self.hashes


Images: TypeAlias = ImageSet | ImageFiles
"""A set of labeled images: in memory, or files that are decoded when they are needed."""


def with_labels(images: Images, labels: Tensor) -> Images:
    """Return the same images with other labels (N,), and the former labels as ``clean_labels``."""
    return replace(images, labels=labels, clean_labels=images.labels)


def relabeled(images: Images, labels: Tensor, classes: tuple[str, ...]) -> Images:
    """Return the same images with labels (N,) of other classes and without ``clean_labels``."""
    return replace(images, labels=labels, classes=classes, clean_labels=None)


def with_classes(images: Images, first: int, stop: int) -> Images:
    """Return the samples of classes ``first`` to ``stop - 1``, with these classes numbered from 0."""
    subset = images.subset(((images.labels >= first) & (images.labels < stop)).nonzero().flatten())
    return replace(subset, labels=subset.labels - first, classes=images.classes[first:stop])


def pixel_sums(images: Tensor) -> Tensor:
    """Return sum and sum of squares of uint8 images for each image and channel: (N, C, H, W) -> (N, C, 2), int64.

    Example:
        >>> pixel_sums(torch.tensor([3, 4], dtype=torch.uint8).view(1, 1, 1, 2)).tolist()
        [[[7, 25]]]
    """
    pixels = images.flatten(2).int()
    return torch.stack([pixels.sum(2), (pixels * pixels).sum(2)], dim=2)


def digests(images: Tensor) -> Tensor:
    """Return the SHA-256 of each image's pixels: (N, C, H, W) -> (N, 32), uint8."""
    hashes = b"".join(hashlib.sha256(image).digest() for image in images.contiguous().numpy())
    return torch.from_numpy(np.frombuffer(bytearray(hashes), dtype=np.uint8).reshape(len(images), 32))


def mean_std(images: Images) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel over all pixels of the set, in 0..1.

    The standard deviation is at least one gray level, so that normalizing a constant channel gives finite values.

    Returns:
        Two float64 tensors (C,).
    """
    _, height, width = images.shape
    total = images.pixel_sums().double().sum(0) / (len(images) * height * width)
    mean = total[:, 0] / 255
    variance = total[:, 1] / 255**2 - mean**2
    return mean, variance.clamp(min=255.0**-2).sqrt()


def _check_labels(labels: Tensor, count: int, num_classes: int) -> None:
    if labels.shape != (count,) or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 of shape ({count},), got {labels.dtype} of {tuple(labels.shape)}")
    if count and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")


def _pick(paths: tuple[str, ...] | None, indices: Tensor) -> tuple[str, ...] | None:
    return None if paths is None else tuple(paths[i] for i in indices.tolist())
