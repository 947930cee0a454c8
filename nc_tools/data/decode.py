"""Decode image files of any format to square uint8 images, all by the same rule.

The EXIF orientation is applied. Transparent images are composited on white. 16-bit gray is divided by 257. Images of
32-bit integers or floats raise an error, because the file does not say which value is white. Of an animation the first
frame is used. The shorter side is resized with antialiasing (bilinear), and the center is cropped. Gray files become
RGB, unless one channel is requested.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

Progress: TypeAlias = Callable[[int, int], None]
"""Called as ``progress(done, total)``."""

DECODE_RULE = 2
"""Increase this number when the rule above changes, so that cached pixels are decoded again."""

CHUNK = 128

FileInterpolation: TypeAlias = Literal["bilinear", "bicubic"]
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# What Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class UnreadableImageError(ValueError):
    """An image file, or several, cannot be decoded.

    Attributes:
        reasons: The reason by file, where there are several; the message names only the first ones.
    """

    reasons: Mapping[str, str] = MappingProxyType({})


class Chunk(NamedTuple):
    """Consecutive image files of a list, decoded; unreadable ones are black, with the reason by file name.

    ``converted`` counts the images whose form was changed, by what they were, such as "gray".
    """

    start: int
    images: Tensor
    unreadable: dict[str, str]
    converted: Counter[str]


class Decoded(NamedTuple):
    """One decoded image (C, H, W), uint8, and what it was before: "" for an image of the form that was asked for."""

    pixels: np.ndarray
    converted: str


def decode_image(
    path: Path, image_size: int, channels: int, interpolation: FileInterpolation = "bilinear"
) -> np.ndarray:
    """Decode one image file to a square uint8 image: the pixels of :func:`decode_file`."""
    return decode_file(path, image_size, channels, interpolation).pixels


def decode_file(
    file: Path | BinaryIO, image_size: int, channels: int, interpolation: FileInterpolation = "bilinear"
) -> Decoded:
    """Decode one image file to a square uint8 image.

    Args:
        file: Path of an image file, or the file itself, open for reading bytes.
        image_size: Side of the result in pixels.
        channels: 3 for RGB or 1 for gray.
        interpolation: Of the resizing, which is antialiased either way.

    Returns:
        (C, image_size, image_size), uint8, and what was converted.

    Raises:
        UnreadableImageError: If the file is damaged, or its format or range of values is unknown.
    """
    suffix = file.suffix.lower() if isinstance(file, Path) else ""
    try:
        with Image.open(file, formats=_formats(suffix)) as opened:
            # Large JPEG files are decoded at a fraction of their size, at least twice the target.
            opened.draft(None, (2 * image_size, 2 * image_size))
            image, converted = _as_mode(opened, "RGB" if channels == 3 else "L")
        side = min(image.size)
        if image.size != (image_size, image_size):
            # The same as resizing the image and cropping, without resizing the pixels that are cropped away.
            left, top = (image.width - side) / 2, (image.height - side) / 2
            image = image.resize(
                (image_size, image_size), _RESAMPLING[interpolation], box=(left, top, left + side, top + side)
            )
    except _DAMAGE as error:
        raise UnreadableImageError(f"{file}: {str(error) or type(error).__name__}") from error
    pixels = np.asarray(image)
    return Decoded(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1), converted)


_FORMS = {"1": "bilevel", "L": "gray", "P": "palette", "RGB": "color", "CMYK": "CMYK", "YCbCr": "YCbCr"}
TRANSPARENT, DEEP, DARK = "transparent", "16-bit", "16-bit and nearly black"


def _as_mode(file: Image.Image, mode: str) -> tuple[Image.Image, str]:
    """Return the image in the mode that was asked for, and what it was if it was changed."""
    image = ImageOps.exif_transpose(file)
    converted = "" if image.mode == mode else _FORMS.get(image.mode, image.mode)
    if image.mode.startswith("I;16") or (image.mode == "I" and file.format == "PNG"):
        values = np.asarray(image).astype(np.int64)
        converted = DARK if int(values.max(initial=0)) < 2**13 else DEEP
        image = Image.fromarray((values // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"a 32-bit image (mode {image.mode}) has no defined range of values: convert it to 8 or 16 bits"
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        converted = TRANSPARENT
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode), converted


def decode_batch(
    root: Path, paths: Sequence[str], image_size: int, channels: int, interpolation: FileInterpolation = "bilinear"
) -> Tensor:
    """Decode files into one tensor (B, C, image_size, image_size), uint8.

    Raises:
        UnreadableImageError: For the first file that cannot be decoded.
    """
    images = torch.empty(len(paths), channels, image_size, image_size, dtype=torch.uint8)
    for row, path in zip(images.numpy(), paths, strict=True):
        row[...] = decode_image(root / path, image_size, channels, interpolation)
    return images


def decode_chunks(
    root: Path, paths: Sequence[str], image_size: int, channels: int, progress: Progress | None = None,
    interpolation: FileInterpolation = "bilinear",
) -> Iterator[Chunk]:  # fmt: skip
    """Decode many files in order, with one thread for each core, and yield them in chunks.

    Threads suffice because Pillow releases the GIL while it decodes and resizes. Only a few chunks are in memory at a
    time. Files that cannot be decoded are reported in the chunk and do not raise, so that all of them can be reported
    together.
    """

    def decode_chunk(start: int) -> Chunk:
        names = paths[start : start + CHUNK]
        images = torch.zeros(len(names), channels, image_size, image_size, dtype=torch.uint8)
        unreadable: dict[str, str] = {}
        converted: Counter[str] = Counter()
        for row, name in zip(images.numpy(), names, strict=True):
            try:
                row[...], form = decode_file(root / name, image_size, channels, interpolation)
                converted[form] += 1
            except UnreadableImageError as error:
                unreadable[name] = damage_text(error.__cause__)
        del converted[""]
        return Chunk(start, images, unreadable, converted)

    workers = available_cores()
    pending: deque[Future[Chunk]] = deque()
    starts = iter(range(0, len(paths), CHUNK))
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in starts:
                pending.append(pool.submit(decode_chunk, start))
                if len(pending) < 4 * workers:
                    continue
                yield _report(pending.popleft().result(), len(paths), progress)
            while pending:
                yield _report(pending.popleft().result(), len(paths), progress)
        finally:
            for future in pending:
                future.cancel()


def damage_text(error: BaseException | None) -> str:
    """Return in a few words why an image cannot be decoded, without the path that some messages repeat.

    Example:
        >>> damage_text(FileNotFoundError(2, "No such file or directory", "/a/b.png"))
        'No such file or directory'
    """
    if isinstance(error, UnidentifiedImageError):
        return "no image"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _report(chunk: Chunk, total: int, progress: Progress | None) -> Chunk:
    if progress is not None:
        progress(chunk.start + len(chunk.images), total)
    return chunk


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_size(root: Path, paths: Sequence[str], limit: int) -> int:
    """Return the default image side of a folder: the median of the shorter sides of its images, at most ``limit``.

    Only the headers of up to 1,000 evenly spaced files are read. Unreadable ones are skipped here; decoding reports
    them.

    Raises:
        UnreadableImageError: If no header can be read.
    """
    sides = []
    for path in paths[:: max(1, len(paths) // 1000)]:
        try:
            with Image.open(root / path) as image:
                sides.append(min(image.size))
        except _DAMAGE:
            continue
    if not sides:
        raise UnreadableImageError(
            f"none of the files under {root} can be read as an image: open one in an image viewer, or "
            "choose another folder"
        )
    return min(limit, sorted(sides)[len(sides) // 2])


@cache
def image_suffixes() -> frozenset[str]:
    """Return the file suffixes that Pillow can decode without other programs, in lower case and with their dot."""
    formats = _own_formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


@cache
def _formats(suffix: str) -> tuple[str, ...]:
    """Return the formats to try on a file; the one of its suffix comes first, which takes a third of the time."""
    first = Image.registered_extensions().get(suffix)
    return tuple(sorted(_own_formats(), key=lambda name: (name != first, name)))


@cache
def _own_formats() -> frozenset[str]:
    Image.init()
    return frozenset(Image.OPEN) - {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # they need other programs
