"""Images of no class that is trained on: the sets that out-of-distribution scores are measured with."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data.builtin import fit_shape, load_builtin
from nc_tools.data.csv_text import open_csv
from nc_tools.data.data_config import DataConfig
from nc_tools.data.decode import Progress
from nc_tools.data.folder import FolderContents, FolderTree, Listing, list_folder, read_listing
from nc_tools.data.image_set import Images, ImageSet
from nc_tools.data.source_names import SCRAMBLED, SourceName, parse_ood_source

MOST_SCRAMBLED = 10_000


def load_ood(
    config: DataConfig, test: Images, limit: float, cache: Path | None = None, progress: Progress | None = None
) -> tuple[dict[str, Images], tuple[str, ...]]:
    """Load the near and the far set of a configuration, brought to the size and channels of the test set.

    Of a source with a test part of its own that part is taken, else all its images.

    Args:
        config: Its ``ood_near``, ``ood_near_exclude`` and ``ood_far``.
        test: The in-distribution test set.
        limit: Largest set in bytes that is kept in memory.
        cache: Folder for decoded images, or None.
        progress: Called as ``progress(done, total)`` while files are decoded.

    Returns:
        "near" and "far", where they are asked for, and the unreadable files that were left out.

    Raises:
        FileNotFoundError: If a folder or file is missing.
        ValueError: If a set is empty, or a class to leave out is not in it.
    """
    found: dict[str, Images] = {}
    skipped: tuple[str, ...] = ()
    for name, text in (("near", config.ood_near), ("far", config.ood_far)):
        if text is None:
            continue
        source = parse_ood_source(text)
        exclude = config.ood_near_exclude if name == "near" else None
        if source.kind == SCRAMBLED:
            found[name] = scrambled(test)
        else:
            found[name], bad = read_unlabeled(source, "test", exclude, test, config, limit, cache, progress)
            skipped += bad
        if len(found[name]) == 0:
            raise ValueError(f"ood_{name} must hold images, and of {text} none is left: exclude fewer classes")
    return found, skipped


def read_unlabeled(
    source: SourceName,
    part: Literal["train", "test"],
    exclude: str | None,
    like: Images,
    config: DataConfig,
    limit: float,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Images, tuple[str, ...]]:
    """Read the images of a source whatever their classes, less those that a file names.

    Args:
        source: A data source.
        part: Which part of a source with parts of its own; one without gives all its images.
        exclude: A CSV of classes to leave out, or None.
        like: Its size and channels are those of the images returned.
        config: Whether unreadable files are passed over.
        limit: Largest set in bytes that is kept in memory.
        cache: Folder for decoded images, or None.
        progress: Called as ``progress(done, total)`` while files are decoded.

    Returns:
        The images, and the unreadable files that were left out.

    Raises:
        FileNotFoundError: If a folder or file is missing.
        ValueError: If no class of a folder is left, or a class to leave out is not there.
    """
    left_out = () if exclude is None else read_classes(Path(exclude).expanduser())
    if source.folder is None:
        return _embedded(source, part, left_out, like), ()
    return _folder(source.folder, part, left_out, like, config, limit, cache, progress)


def scrambled(images: Images) -> ImageSet:
    """Return the images with their pixels in random order, another for each image, the same on every call.

    A far set for data without one: brightness and contrast of every image are as they were, all structure is gone.
    The first 10,000 images serve. It is easy: what fails here fails everywhere, and what passes shows little.

    Example:
        >>> pixels = torch.arange(8, dtype=torch.uint8).view(1, 2, 2, 2)
        >>> mixed = scrambled(ImageSet(pixels, torch.zeros(1).long(), ("a",), "x")).images
        >>> mixed.flatten(2).sort(2).values.tolist()  # a pixel keeps its channels together
        [[[0, 1, 2, 3], [4, 5, 6, 7]]]
    """
    index = torch.arange(min(len(images), MOST_SCRAMBLED))
    pixels = images.take(index).flatten(2)
    key = torch.rand(len(pixels), pixels.shape[2], generator=torch.Generator().manual_seed(0))
    order = key.argsort(dim=1)[:, None].expand_as(pixels)
    mixed = pixels.gather(2, order).view(-1, *images.shape)
    return ImageSet(mixed, torch.zeros(len(mixed), dtype=torch.int64), ("scrambled",), "scrambled")


def read_classes(file: Path) -> tuple[str, ...]:
    """Read names of classes from the first column of a CSV; its header and further columns are for people.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it names none, or is no CSV in UTF-8.
    """
    if not file.is_file():
        raise FileNotFoundError(f"a file of classes to leave out must exist, and {file} does not: check the path")
    with open_csv(file) as handle:
        names = [row[0].strip() for row in csv.reader(handle) if row and row[0].strip()]
    if len(names) < 2:
        raise ValueError(f"a file of classes has a header and a class in each row, and {file} names none")
    return tuple(names[1:])


def _kept(classes: tuple[str, ...], left_out: tuple[str, ...], where: object) -> Tensor:
    """Return which classes stay (K,), bool."""
    for name in left_out:
        if name not in classes:
            raise ValueError(f"class {name!r} is to be left out, but {where} has none; {did_you_mean(name, classes)}")
    return torch.tensor([name not in left_out for name in classes])


def _embedded(source: SourceName, part: Literal["train", "test"], left_out: tuple[str, ...], like: Images) -> Images:
    channels, size, _ = like.shape
    images = load_builtin(source.kind, source.path)[("train", "test").index(part)]
    kept = _kept(images.classes, left_out, source.kind)
    return fit_shape(images.subset(kept[images.labels].nonzero().flatten()), size, channels)


def _folder(
    root: Path,
    part: Literal["train", "test"],
    left_out: tuple[str, ...],
    like: Images,
    config: DataConfig,
    limit: float,
    cache: Path | None,
    progress: Progress | None,
) -> tuple[Images, tuple[str, ...]]:
    channels, size, _ = like.shape
    tree = list_folder(root)
    listing = _listed(tree, part)
    if left_out:  # under another name, so that the cache of the whole stays
        some = listing.where(_kept(tree.classes, left_out, root)[listing.labels])
        listing = replace(some, split=f"{listing.split}-part")
    if not listing.paths:
        raise ValueError(f"no class of {root} is left after those to be left out: exclude fewer")
    in_memory = len(listing.paths) * channels * size * size <= limit
    how = FolderContents(size, channels, in_memory, config.skip_unreadable, cache, progress)
    return read_listing(tree, listing, how)


def _listed(tree: FolderTree, part: Literal["train", "test"]) -> Listing:
    """Return a part, or everything where the folder had no split of its own and was cut in two."""
    if (tree.root / tree.test.split).is_dir():
        return tree.train if part == "train" else tree.test
    paths, labels = tree.train.paths + tree.test.paths, torch.cat([tree.train.labels, tree.test.labels])
    return Listing("all", paths, labels)
