"""Image folders: one folder per class, in train/ and test/ or val/, or in a single tree that is split here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.data.decode import (
    Progress,
    UnreadableImageError,
    decode_chunks,
    default_size,
    image_suffixes,
)
from nc_tools.data.decoded_cache import cache_file, files_key, read_cache, write_cache
from nc_tools.data.image_set import ImageFiles, Images, ImageSet, digests, pixel_sums
from nc_tools.data.imbalance import class_counts, split_holdout
from nc_tools.data.short_list import short_list

TEST_SHARE = 0.2
"""Share of each class that is used for testing if a folder has no split of its own; the same images for all seeds."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The image files of one split of a folder: paths relative to the root, sorted, with their class."""

    split: str
    paths: tuple[str, ...]
    labels: Tensor

    def where(self, mask: Tensor) -> Listing:
        """Return the listing of the files for which ``mask`` (N,) is true."""
        kept = tuple(path for path, keep in zip(self.paths, mask.tolist(), strict=True) if keep)
        return replace(self, paths=kept, labels=self.labels[mask])


@dataclass(frozen=True, eq=False)
class FolderTree:
    """The classes and files of an image folder."""

    root: Path
    classes: tuple[str, ...]
    train: Listing
    test: Listing


@dataclass(frozen=True)
class ReadOptions:
    """How image files are read, the same for all sets of a run.

    Attributes:
        memory_limit: Sets of more bytes than this are decoded during training instead of kept in memory.
        skip_unreadable: Leave out damaged files instead of stopping.
        cache: Folder for decoded images, or None.
        progress: Called as ``progress(done, total)`` while files are decoded, or None.
    """

    memory_limit: float
    skip_unreadable: bool = False
    cache: Path | None = None
    progress: Progress | None = None


def list_folder(root: Path) -> FolderTree:
    """List the classes and files of an image folder.

    ``train`` goes with ``test``, or with ``val`` if there is no ``test``. A folder with only one of the
    three, or with class folders and none of the three, is one tree and is split 80 / 20 by class, the same
    for every seed. Hidden files and folders and files that are not images are ignored. Images may lie at
    any depth below the folder of their class.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no images, a class is empty, or training and test images have different classes.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"the image folder {root} does not exist: check the path")
    splits = [name for name in ("train", "test", "val") if (root / name).is_dir()]
    if len(splits) < 2 or "train" not in splits:
        classes, listing = _list_split(root, splits[0] if len(splits) == 1 else ".")
        _, test = split_holdout(listing.labels, TEST_SHARE, torch.Generator().manual_seed(0))
        in_test = torch.zeros(len(listing.paths), dtype=torch.bool).index_fill_(0, test, 1)
        tree = FolderTree(
            root,
            classes,
            replace(listing.where(~in_test), split=f"{listing.split}-train".lstrip(".-")),
            replace(listing.where(in_test), split=f"{listing.split}-test".lstrip(".-")),
        )
    else:
        classes, train = _list_split(root, "train")
        test_classes, held = _list_split(root, splits[1])
        if classes != test_classes:
            raise ValueError(_different_classes(root, held.split, classes, test_classes))
        tree = FolderTree(root, classes, train, held)
    check_classes(tree)
    return tree


def _different_classes(root: Path, test: str, classes: tuple[str, ...], test_classes: tuple[str, ...]) -> str:
    parts = [
        f"only {root / split} has {short_list(sorted(names))}"
        for split, names in (("train", {*classes} - {*test_classes}), (test, {*test_classes} - {*classes}))
        if names
    ]
    return (
        f"training and test folder must have the same class folders, but {' and '.join(parts)}: add or remove class "
        "folders"
    )


def check_classes(tree: FolderTree) -> None:
    """Raise an error if a class has no training image or no test image.

    Raises:
        ValueError: With the names of the classes.
    """
    for listing in (tree.train, tree.test):
        counts = class_counts(listing.labels, len(tree.classes)).tolist()
        empty = [name for name, count in zip(tree.classes, counts, strict=True) if not count]
        if empty:
            raise ValueError(
                f"every class needs at least one training and one test image, but the {listing.split} part of "
                f"{tree.root} has none of {short_list(empty)}: add images of these classes or remove their folders"
            )


def _list_split(root: Path, split: str) -> tuple[tuple[str, ...], Listing]:
    top = root / split
    suffixes = image_suffixes()
    files = {
        folder.name: list(_images_below(root, folder, suffixes))
        for folder in sorted(top.iterdir())
        if folder.is_dir() and not _ignored(folder.name)
    }
    if not any(files.values()):
        loose = any(path.suffix.lower() in suffixes for path in top.iterdir())
        problem = "its images are in no class folder" if loose else "no images were found"
        raise ValueError(f"{top} must hold one folder of images for each class, but {problem}")
    empty = [name for name, paths in files.items() if not paths]
    if empty:
        raise ValueError(
            f"every class folder needs at least one image, but in {top} there is none in {short_list(empty)}: "
            "add images or remove these folders"
        )
    sizes = torch.tensor([len(paths) for paths in files.values()])
    labels = torch.arange(len(files)).repeat_interleave(sizes)
    return tuple(files), Listing(split, tuple(path for paths in files.values() for path in paths), labels)


def _images_below(root: Path, folder: Path, suffixes: frozenset[str]) -> Iterator[str]:
    """Yield the paths of a class relative to the root, sorted folder by folder."""
    for current, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not _ignored(name))
        below = Path(current).relative_to(root).as_posix()
        for name in sorted(files):
            if not _ignored(name) and os.path.splitext(name)[1].lower() in suffixes:  # noqa: PTH122 (fast)
                yield f"{below}/{name}"


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def choose_size(tree: FolderTree) -> int:
    """Return the default image side of a folder, in pixels."""
    return default_size(tree.root, tree.train.paths)


def read_listing(
    tree: FolderTree, listing: Listing, options: ReadOptions, *, image_size: int, channels: int, in_memory: bool
) -> tuple[Images, tuple[str, ...]]:
    """Decode the images of one split of a folder, or read them from the cache.

    Args:
        tree: The folder.
        listing: The files to read.
        options: Cache, progress, and whether damaged files are skipped.
        image_size: Side in pixels.
        channels: 3 or 1.
        in_memory: Keep the pixels, or only the statistics of one pass over the files.

    Returns:
        The images, and the paths that were skipped.

    Raises:
        UnreadableImageError: If files are damaged and ``skip_unreadable`` is off.
    """
    shape = (channels, image_size, image_size)
    location, key, cached = None, "", None
    if options.cache is not None:
        form = "pixels" if in_memory else "scan"
        location = cache_file(options.cache, tree.root, listing.split, image_size, channels, form)
        key = files_key(tree.root, listing.paths, image_size, channels)
        cached = read_cache(location, key)
    tensors, unreadable = cached or _decode(tree.root, listing.paths, shape, options.progress, in_memory=in_memory)
    if location is not None and cached is None:
        write_cache(location, key, tensors, unreadable)
    if unreadable and not options.skip_unreadable:
        reasons = [f"{path} ({reason})" for path, reason in unreadable.items()]
        raise UnreadableImageError(
            f"{len(unreadable)} of {len(listing.paths)} images under {tree.root} cannot be read: "
            f"{short_list(reasons)}. Repair or remove them, or leave them out with --skip-unreadable "
            "(skip_unreadable=True)"
        )
    kept = listing.where(torch.tensor([path not in unreadable for path in listing.paths]))
    name = tree.root.resolve().name
    images: Images
    if in_memory:
        images = ImageSet(tensors["images"], kept.labels, tree.classes, name, paths=kept.paths)
    else:
        images = ImageFiles(
            tree.root, kept.paths, kept.labels, tree.classes, name, channels, image_size,
            sums=tensors["sums"], hashes=tensors["hashes"],
        )  # fmt: skip
    return images, tuple(unreadable)


def _decode(
    root: Path, paths: tuple[str, ...], shape: tuple[int, int, int], progress: Progress | None, *, in_memory: bool
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Decode all files once; damaged ones leave no row."""
    channels, image_size, _ = shape
    images = torch.empty(len(paths) if in_memory else 0, *shape, dtype=torch.uint8)
    sums, hashes = (
        [torch.empty(0, channels, 2, dtype=torch.int64)],
        [torch.empty(0, 32, dtype=torch.uint8)],
    )
    unreadable: dict[str, str] = {}
    rows = 0
    for chunk in decode_chunks(root, paths, image_size, channels, progress):
        names = paths[chunk.start : chunk.start + len(chunk.images)]
        unreadable |= chunk.unreadable
        good = chunk.images[[name not in chunk.unreadable for name in names]]
        if in_memory:
            images[rows : rows + len(good)] = good
            rows += len(good)
        else:
            sums.append(pixel_sums(good))
        hashes.append(digests(good))
    tensors = {"hashes": torch.cat(hashes)}
    tensors |= {"images": images[:rows]} if in_memory else {"sums": torch.cat(sums)}
    return tensors, unreadable
