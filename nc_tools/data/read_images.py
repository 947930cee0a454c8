"""Read the images of a listing: decode them, or take them from the cache, and collect the files that are damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.printable import printable
from nc_tools.data.decode import Progress, decode_chunks
from nc_tools.data.decoded_cache import CachedImages, cache_file, files_key, read_cache, write_cache
from nc_tools.data.folder_walk import has_utf8_name
from nc_tools.data.image_set import ImageFiles, Images, ImageSet, digests, pixel_sums
from nc_tools.data.listing import Listing, group_numbers
from nc_tools.data.short_list import short_list
from nc_tools.decoding.image_file import DARK, DEEP, TRANSPARENT, FileInterpolation, UnreadableImageError

_NAMED = 20
_BAD_NAME = "its name is not UTF-8: rename it"


@dataclass
class Damage:
    """The files of a run's sets that cannot be read.

    Attributes:
        reasons: The reason by path.
        total: Number of all files of the sets, readable or not.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    total: int = 0

    def check(self) -> None:
        """Raise an error that names the files, if there are any.

        Raises:
            UnreadableImageError: For all files of all sets together.
        """
        if not self.reasons:
            return
        reasons = [f"{path} ({reason})" for path, reason in self.reasons.items()]
        error = UnreadableImageError(
            f"{len(self.reasons)} of {self.total} images cannot be read: {short_list(reasons, _NAMED)}. Repair or "
            "remove them, or leave them out with --skip-unreadable (skip_unreadable=True)"
        )
        error.reasons = self.reasons
        raise error


@dataclass(frozen=True)
class ReadOptions:
    """How image files are read, the same for all sets of a run.

    Attributes:
        memory_limit: Sets whose pixels have more bytes than this are decoded during training, not kept in memory.
        skip_unreadable: Leave out damaged files instead of stopping.
        cache: Folder for decoded images, or None.
        progress: Called as ``progress(done, total)`` while files are decoded, or None.
        damage: Collects the files that cannot be read, so that all can be named together.
        interpolation: Of the resizing.
    """

    memory_limit: float
    skip_unreadable: bool = False
    cache: Path | None = None
    progress: Progress | None = None
    damage: Damage = field(default_factory=Damage)
    interpolation: FileInterpolation = "bilinear"


@dataclass(frozen=True)
class ReadImages:
    """The images of a listing that could be read.

    Attributes:
        images: The readable images.
        skipped: Paths of the other files.
        converted: How many images had another form, such as "gray", by that form.
    """

    images: Images
    skipped: tuple[str, ...]
    converted: Mapping[str, int]


def read_listing(
    root: Path,
    classes: tuple[str, ...],
    listing: Listing,
    options: ReadOptions,
    *,
    image_size: int,
    channels: int,
    in_memory: bool,
    group_names: Sequence[str] | None = None,
) -> ReadImages:
    """Decode the images of one part of a source, or read them from the cache.

    Damaged files have no image in the result. Unless they may be skipped, they are added to ``options.damage``, whose
    check stops the run once all sets have been read.

    Args:
        root: Folder that the paths are relative to.
        classes: K names.
        listing: The files to read.
        options: Cache, progress, and where damaged files are collected.
        image_size: Side in pixels.
        channels: 3 or 1.
        in_memory: True to keep the pixels; False to keep only statistics and hashes from one pass over the files.
        group_names: The groups of all parts of the source, by which groups are numbered; None for those of this part.
    """
    shape = (channels, image_size, image_size)
    readable = tuple(path for path in listing.paths if has_utf8_name(path))
    location, key, cached = None, "", None
    if options.cache is not None:
        form = f"{options.interpolation}-{'pixels' if in_memory else 'scan'}"
        location = cache_file(options.cache, root, listing.split, image_size, channels, form)
        key = files_key(root, readable, image_size, channels, options.interpolation)
        cached = read_cache(location, key, pixels=in_memory)
    decoded = cached or _decode(root, readable, shape, options, in_memory=in_memory)
    if location is not None and cached is None:
        write_cache(location, key, decoded)
    unreadable = decoded.unreadable | {path: _BAD_NAME for path in listing.paths if not has_utf8_name(path)}
    options.damage.total += len(listing.paths)
    if not options.skip_unreadable:
        options.damage.reasons |= {printable(path): reason for path, reason in unreadable.items()}
    kept = listing.where(torch.tensor([path not in unreadable for path in listing.paths], dtype=torch.bool))
    groups = None if kept.groups is None else group_numbers(kept.groups, group_names)
    name = root.resolve().name
    images: Images
    if in_memory:
        images = ImageSet(
            decoded.tensors["images"], kept.labels, classes, name,
            paths=kept.paths, groups=groups, hashes=decoded.tensors["hashes"],
        )  # fmt: skip
    else:
        images = ImageFiles(
            root, kept.paths, kept.labels, classes, name, channels, image_size,
            sums=decoded.tensors["sums"], hashes=decoded.tensors["hashes"], groups=groups,
            interpolation=options.interpolation,
        )  # fmt: skip
    return ReadImages(images, tuple(printable(path) for path in unreadable), decoded.converted)


def conversion_sentence(converted: Mapping[str, int]) -> list[str]:
    """Return a sentence about the images whose form was changed, or nothing if there are none.

    Example:
        >>> conversion_sentence({"gray": 2})
        ['converted to the form of the others: 2 gray']
    """
    rules = {
        TRANSPARENT: "put on white",
        DEEP: "divided by 257",
        DARK: "divided by 257; give them their full range if they are not meant to be dark",
    }
    parts = [
        f"{count} {form}{f' ({rules[form]})' if form in rules else ''}"
        for form, count in sorted(converted.items(), key=lambda item: (-item[1], item[0]))
    ]
    return [f"converted to the form of the others: {', '.join(parts)}"] if parts else []


def _decode(
    root: Path, paths: tuple[str, ...], shape: tuple[int, int, int], options: ReadOptions, *, in_memory: bool
) -> CachedImages:
    """Decode all files once; damaged ones have no row in the tensors."""
    channels, image_size, _ = shape
    images = torch.empty(len(paths) if in_memory else 0, *shape, dtype=torch.uint8)
    measure = _digest if in_memory else _digest_and_sum
    measured = [measure(images[:0])]
    unreadable: dict[str, str] = {}
    converted: Counter[str] = Counter()
    rows = 0
    for chunk in decode_chunks(root, paths, image_size, channels, options.progress, options.interpolation, measure):
        unreadable |= chunk.unreadable
        converted += chunk.converted
        measured.append(chunk.measured)
        if in_memory:
            good = chunk.readable(paths[chunk.start : chunk.start + len(chunk.images)])
            images[rows : rows + len(good)] = good
            rows += len(good)
    tensors = dict(zip(("hashes", "sums"), (torch.cat(parts) for parts in zip(*measured, strict=True)), strict=False))
    if in_memory:
        tensors["images"] = images[:rows]
    return CachedImages(tensors, unreadable, dict(converted))


def _digest(images: Tensor) -> tuple[Tensor, ...]:
    return (digests(images),)


def _digest_and_sum(images: Tensor) -> tuple[Tensor, ...]:
    return digests(images), pixel_sums(images)
