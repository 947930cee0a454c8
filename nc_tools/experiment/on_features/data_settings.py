"""Refuse settings of the data that would change nothing where a comparison runs on fixed features."""

from __future__ import annotations

from dataclasses import replace

from nc_tools.data import DataConfig
from nc_tools.features.image_views import image_views

_AUGMENTATION = ("crop_padding", "flip", "rand_augment", "color_jitter", "cutout")
_NOT_READ = ("outliers", "outliers_exclude", "transfer_data")
_OF_FILES = (
    "image_size", "size_limit", "interpolation", "table", "class_folder", "skip_missing", "skip_unreadable",
    "drop_duplicates", "memory_gb", "coarse", "held_out_classes", "resplit",
)  # fmt: skip
_OUTLIERS = ("ood_near", "ood_near_exclude", "ood_far")


def plain_data(source: str) -> DataConfig:
    """Return the settings with which fixed features of a data source are computed: each image once, unaugmented."""
    return DataConfig(source, crop_padding=0, flip=False)


def with_augmentation(data: DataConfig) -> DataConfig:
    """Return :func:`plain_data` with the crop and flip of other runs, for several views of each image."""
    return replace(data, crop_padding=None, flip=None)


def refuse_unused_settings(data: DataConfig, *, embeddings: bool) -> None:
    """Refuse settings of the data that would have no effect on runs on fixed features.

    Args:
        data: The configuration that all arms share.
        embeddings: Whether the features come from a file instead of images.

    Raises:
        ValueError: If one would change nothing; the message names it and says what to do.
    """
    plain = plain_data(data.source) if data.views == 1 else with_augmentation(plain_data(data.source))
    changed = [name for name in vars(plain) if getattr(data, name) != getattr(plain, name)]
    if embeddings and data.views > 1:
        raise ValueError(
            f"views are augmented images that pass through the network, and an embedding file has no images, got "
            f"{data.views} views: leave --views and data.views out"
        )
    if embeddings and (names := [name for name in changed if name in _OUTLIERS]):
        raise ValueError(
            f"an embedding file holds its own out-of-distribution rows, so {_settings(names)} would not be read: leave "
            f"it out, and give such rows of the file the split 'ood_near' or 'ood_far'"
        )
    if embeddings and (names := [name for name in changed if name in _OF_FILES]):
        raise ValueError(f"{_settings(names)} is about image files, and an embedding file has none: leave it out")
    if data.views == 1 and (names := [name for name in changed if name in _AUGMENTATION]):
        cached = "" if embeddings else "cache several views of each image with --views 4, or "
        raise ValueError(
            f"{_settings(names)} changes images at every epoch, and fixed features are computed once: leave it out, "
            f"or {cached}train the network too, with a recipe such as recipes/long_tail.py and --train last:1"
        )
    if names := [name for name in changed if name in _NOT_READ]:
        raise ValueError(f"{_settings(names)} is not used by runs on fixed features: leave it out, or use a recipe")
    image_views(data, image_size=8)  # raises if the views would be equal, at any side


def _settings(names: list[str]) -> str:
    return ", ".join(f"data.{name}" for name in names)
