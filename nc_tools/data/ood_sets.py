"""Load the sets for out-of-distribution scores: images of none of the classes that are trained on."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data.builtin import fit_shape, load_builtin
from nc_tools.data.csv_files import open_csv
from nc_tools.data.data_config import DataConfig
from nc_tools.data.image_set import Images, ImageSet
from nc_tools.data.list_source import list_source
from nc_tools.data.read_images import ReadOptions, read_listing
from nc_tools.data.source_names import BUILTIN_KINDS, SCRAMBLED, SourceName, parse_ood_source

MOST_SCRAMBLED = 10_000


def load_ood(config: DataConfig, test: Images, options: ReadOptions) -> tuple[dict[str, Images], tuple[str, ...]]:
    """Load the near and far out-of-distribution sets of a DataConfig, at the size and channels of the test set.

    If a source has a test part of its own, that part is used, and else all its images.

    Args:
        config: Its ``ood_near``, ``ood_near_exclude`` and ``ood_far`` are used.
        test: The in-distribution test set.
        options: How files are read.

    Returns:
        The configured sets, with the keys "near" and "far", and the unreadable files that were left out.

    Raises:
        FileNotFoundError: If a folder or file is missing.
        ValueError: If a set is empty, or a class to leave out is not in it.
    """
    sets: dict[str, Images] = {}
    skipped: tuple[str, ...] = ()
    for name, text in (("near", config.ood_near), ("far", config.ood_far)):
        if text is None:
            continue
        source = parse_ood_source(text)
        exclude = config.ood_near_exclude if name == "near" else None
        if source.kind == SCRAMBLED:
            sets[name] = scrambled(test)
        else:
            sets[name], unreadable = read_unlabeled(source, "test", exclude, test, options)
            skipped += unreadable
        if len(sets[name]) == 0:
            options.damage.check()
            raise ValueError(f"ood_{name}={text} has no images left: exclude fewer classes")
    return sets, skipped


def read_unlabeled(
    source: SourceName, part: Literal["train", "test"], exclude: str | None, like: Images, options: ReadOptions
) -> tuple[Images, tuple[str, ...]]:
    """Read the images of a source for use without labels, except those of the classes that a CSV file lists.

    Args:
        source: A data source.
        part: Which part to use if the source has a training and a test part. Of any other source all images are used.
        exclude: A CSV file of classes to leave out, or None.
        like: A set with the image size and the channels to return.
        options: How files are read.

    Returns:
        The images, and the unreadable files that were left out.

    Raises:
        FileNotFoundError: If a folder or file is missing.
        ValueError: If no class of a folder is left, or a class to leave out is not there.
    """
    excluded = () if exclude is None else read_classes(Path(exclude).expanduser())
    if source.kind in BUILTIN_KINDS:
        return _read_builtin(source, part, excluded, like), ()
    return _read_listed(source, part, excluded, like, options)


def scrambled(images: Images) -> ImageSet:
    """Return the images with their pixels in random order, different for each image and the same on every call.

    Use it as a far set if there is no other: the brightness and contrast of each image are unchanged, and all structure
    is gone. At most the first 10,000 images are used. The set is easy: a score that fails on it is of no use, and one
    that succeeds may still fail on real outliers.

    Example:
        >>> pixels = torch.arange(8, dtype=torch.uint8).view(1, 2, 2, 2)
        >>> mixed = scrambled(ImageSet(pixels, torch.zeros(1).long(), ("a",), "x")).images
        >>> mixed.flatten(2).sort(2).values.tolist()  # the channels of a pixel stay together
        [[[0, 1, 2, 3], [4, 5, 6, 7]]]
    """
    index = torch.arange(min(len(images), MOST_SCRAMBLED))
    pixels = images.take(index).flatten(2)
    key = torch.rand(len(pixels), pixels.shape[2], generator=torch.Generator().manual_seed(0))
    order = key.argsort(dim=1)[:, None].expand_as(pixels)
    mixed = pixels.gather(2, order).view(-1, *images.shape)
    return ImageSet(mixed, torch.zeros(len(mixed), dtype=torch.int64), ("scrambled",), "scrambled")


def read_classes(file: Path) -> tuple[str, ...]:
    """Read class names from the first column of a CSV file; its header and its other columns are ignored.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it names no class, or is not CSV in UTF-8.
    """
    with open_csv(file) as handle:
        names = [row[0].strip() for row in csv.reader(handle) if row and row[0].strip()]
    if len(names) < 2:
        raise ValueError(f"{file} must have a header row and a class name in each further row, but it names no class")
    return tuple(names[1:])


def _kept(classes: tuple[str, ...], excluded: tuple[str, ...], source: object) -> Tensor:
    """Return which classes are not excluded (K,), bool; a ValueError if an excluded one does not exist."""
    for name in excluded:
        if name not in classes:
            raise ValueError(f"the class {name!r} to leave out is not in {source}; {did_you_mean(name, classes)}")
    return torch.tensor([name not in excluded for name in classes])


def _read_builtin(
    source: SourceName, part: Literal["train", "test"], excluded: tuple[str, ...], like: Images
) -> Images:
    channels, size, _ = like.shape
    images = load_builtin(source.kind, source.path)[("train", "test").index(part)]
    kept = _kept(images.classes, excluded, source.kind)
    return fit_shape(images.subset(kept[images.labels].nonzero().flatten()), size, channels)


def _read_listed(
    source: SourceName, part: Literal["train", "test"], excluded: tuple[str, ...], like: Images, options: ReadOptions
) -> tuple[Images, tuple[str, ...]]:
    channels, size, _ = like.shape
    tree = list_source(source, check=False)
    root = tree.root
    listing = (tree.train if part == "train" else tree.test) if tree.divided else tree.all_images
    if excluded:  # under another name, so that the cache file of the complete split is not overwritten
        some = listing.where(_kept(tree.classes, excluded, root)[listing.labels])
        listing = replace(some, split=f"{listing.split}-part")
    if not listing.paths:
        raise ValueError(f"all classes of {root} are excluded: list fewer classes in the CSV file of excluded classes")
    in_memory = len(listing.paths) * channels * size * size <= options.memory_limit
    read = read_listing(root, tree.classes, listing, options, image_size=size, channels=channels, in_memory=in_memory)
    return read.images, read.skipped
