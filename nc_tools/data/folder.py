"""Image folders: one folder per class, below train/ and test/ or val/, or in one tree that is split here."""

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

TEST_SHARE = 0.2
"""Of a folder without a split of its own, this share of each class is for testing, the same for all seeds."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The files of one split: paths relative to the root, sorted, with their class."""

    split: str
    paths: tuple[str, ...]
    labels: Tensor

    def where(self, mask: Tensor) -> Listing:
        """Return the files for which ``mask`` (N,) is true."""
        kept = tuple(path for path, keep in zip(self.paths, mask.tolist(), strict=True) if keep)
        return replace(self, paths=kept, labels=self.labels[mask])


@dataclass(frozen=True, eq=False)
class FolderTree:
    """What a data folder holds."""

    root: Path
    classes: tuple[str, ...]
    train: Listing
    test: Listing


@dataclass(frozen=True)
class FolderContents:
    """How the files of a folder are turned into images.

    Attributes:
        image_size: Side in pixels.
        channels: 3 or 1.
        in_memory: Keep the pixels, or only what one pass over them finds.
        skip_unreadable: Go on without damaged files.
        cache: Folder for decoded images, or None.
        progress: Called as decoding goes on.
    """

    image_size: int
    channels: int
    in_memory: bool
    skip_unreadable: bool
    cache: Path | None = None
    progress: Progress | None = None


def list_folder(root: Path) -> FolderTree:
    """Find the classes and files of an image folder.

    ``train`` goes with ``test``, or with ``val`` if there is no ``test``. A folder with only one of the
    three, or with none and class folders right below it, is one tree and is split 80 / 20 by class, the same
    for every seed. Hidden files and folders and files that are no images are passed over; images may lie at
    any depth below their class.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no images, a class is empty, or train and test do not have the same classes.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"an image folder must exist, and {root} does not: check the path")
    splits = [name for name in ("train", "test", "val") if (root / name).is_dir()]
    if len(splits) < 2 or "train" not in splits:
        classes, listing = _list_split(root, splits[0] if len(splits) == 1 else ".")
        _, test = split_holdout(listing.labels, TEST_SHARE, torch.Generator().manual_seed(0))
        chosen = torch.zeros(len(listing.paths), dtype=torch.bool).index_fill_(0, test, 1)
        tree = FolderTree(
            root,
            classes,
            replace(listing.where(~chosen), split=f"{listing.split}-train".lstrip(".-")),
            replace(listing.where(chosen), split=f"{listing.split}-test".lstrip(".-")),
        )
    else:
        classes, first = _list_split(root, "train")
        others, second = _list_split(root, splits[1])
        if classes != others:
            odd = sorted(set(classes) ^ set(others))
            raise ValueError(
                f"{root / 'train'} and {root / second.split} must have the same classes, and only one of "
                f"them has {_some(odd)}"
            )
        tree = FolderTree(root, classes, first, second)
    check_classes(tree)
    return tree


def check_classes(tree: FolderTree) -> None:
    """Refuse a tree in which a class has no training or no test image.

    Raises:
        ValueError: Naming the classes.
    """
    for listing in (tree.train, tree.test):
        counts = class_counts(listing.labels, len(tree.classes)).tolist()
        empty = [name for name, count in zip(tree.classes, counts, strict=True) if not count]
        if empty:
            raise ValueError(
                f"every class needs at least one image to train and one to test on, and the "
                f"{listing.split} part of {tree.root} has none of {_some(empty)}: add images or remove it"
            )


def _list_split(root: Path, split: str) -> tuple[tuple[str, ...], Listing]:
    top = root / split
    suffixes = image_suffixes()
    found = {
        folder.name: list(_images_below(root, folder, suffixes))
        for folder in sorted(top.iterdir())
        if folder.is_dir() and not _ignored(folder.name)
    }
    if not any(found.values()):
        loose = any(path.suffix.lower() in suffixes for path in top.iterdir())
        hint = "its images lie in no class folder" if loose else "no image was found"
        raise ValueError(f"an image folder needs one folder of images per class, and in {top} {hint}")
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise ValueError(
            f"every class folder needs at least one image, and in {top} there is none in {_some(empty)}: "
            "add images or remove the folder"
        )
    paths = tuple(path for files in found.values() for path in files)
    sizes = torch.tensor([len(files) for files in found.values()])
    return tuple(found), Listing(split, paths, torch.arange(len(found)).repeat_interleave(sizes))


def _images_below(root: Path, folder: Path, suffixes: frozenset[str]) -> Iterator[str]:
    """Yield the paths of a class relative to the root, sorted folder by folder."""
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not _ignored(name))
        below = Path(where).relative_to(root).as_posix()
        for name in sorted(files):
            if not _ignored(name) and os.path.splitext(name)[1].lower() in suffixes:  # noqa: PTH122 (fast)
                yield f"{below}/{name}"


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def choose_size(tree: FolderTree) -> int:
    """Return the image side that a folder gets when none is asked for."""
    return default_size(tree.root, tree.train.paths)


def read_listing(tree: FolderTree, listing: Listing, how: FolderContents) -> tuple[Images, tuple[str, ...]]:
    """Decode one split, from the cache where it holds.

    Returns:
        The images, and the paths that were skipped.

    Raises:
        UnreadableImageError: If files are damaged and ``skip_unreadable`` is off.
    """
    form = "pixels" if how.in_memory else "scan"
    place, key, cached = None, "", None
    if how.cache is not None:
        place = cache_file(how.cache, tree.root, listing.split, how.image_size, how.channels, form)
        key = files_key(tree.root, listing.paths, how.image_size, how.channels)
        cached = read_cache(place, key)
    tensors, unreadable = cached if cached is not None else _decode(tree.root, listing.paths, how)
    if place is not None and cached is None:
        write_cache(place, key, tensors, unreadable)
    if unreadable and not how.skip_unreadable:
        reasons = [f"{path} ({reason})" for path, reason in unreadable.items()]
        raise UnreadableImageError(
            f"{len(unreadable)} of {len(listing.paths)} images under {tree.root} cannot be read: "
            f"{_some(reasons)}; mend or remove them, or go on without them with "
            "--skip-unreadable (skip_unreadable=True)"
        )
    kept = listing.where(torch.tensor([path not in unreadable for path in listing.paths]))
    name = tree.root.resolve().name
    images: Images
    if how.in_memory:
        images = ImageSet(tensors["images"], kept.labels, tree.classes, name, paths=kept.paths)
    else:
        images = ImageFiles(
            tree.root, kept.paths, kept.labels, tree.classes, name, how.channels, how.image_size,
            sums=tensors["sums"], hashes=tensors["hashes"],
        )  # fmt: skip
    return images, tuple(unreadable)


def _decode(root: Path, paths: tuple[str, ...], how: FolderContents) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Decode all files once; damaged ones leave no row."""
    shape = (how.channels, how.image_size, how.image_size)
    images = torch.empty(len(paths) if how.in_memory else 0, *shape, dtype=torch.uint8)
    sums, hashes = (
        [torch.empty(0, how.channels, 2, dtype=torch.int64)],
        [torch.empty(0, 32, dtype=torch.uint8)],
    )
    unreadable: dict[str, str] = {}
    rows = 0
    for chunk in decode_chunks(root, paths, how.image_size, how.channels, how.progress):
        names = paths[chunk.start : chunk.start + len(chunk.images)]
        unreadable |= chunk.unreadable
        good = chunk.images[[name not in chunk.unreadable for name in names]]
        if how.in_memory:
            images[rows : rows + len(good)] = good
            rows += len(good)
        else:
            sums.append(pixel_sums(good))
        hashes.append(digests(good))
    tensors = {"hashes": torch.cat(hashes)}
    tensors |= {"images": images[:rows]} if how.in_memory else {"sums": torch.cat(sums)}
    return tensors, unreadable


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
