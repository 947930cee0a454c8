"""From image files of any kind to square uint8 images, by one stated rule.

Orientation from EXIF is applied. Transparent images are laid on white. 16-bit gray is divided by 257; images
of 32-bit integers or floats are refused, since the file does not say what is white. Of an animation the first
frame is taken. The shorter side is brought to size with antialiasing (bilinear) and the center is kept. Gray
files become RGB, unless gray is asked for.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

Progress: TypeAlias = Callable[[int, int], None]
"""Called as ``progress(done, total)``."""

DECODE_RULE = 1
"""Raise when the rule above changes, so that cached pixels are decoded anew."""

CHUNK = 128

# What Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class UnreadableImageError(ValueError):
    """An image file cannot be decoded."""


class Chunk(NamedTuple):
    """A decoded stretch of a list of files; unreadable ones are black and named."""

    start: int
    images: Tensor
    unreadable: dict[str, str]


def decode_image(path: Path, image_size: int, channels: int) -> np.ndarray:
    """Decode one file by the rule of this module.

    Args:
        path: Image file.
        image_size: Side of the result in pixels.
        channels: 3 for RGB or 1 for gray.

    Returns:
        (C, image_size, image_size), uint8.

    Raises:
        UnreadableImageError: If the file is damaged, of no known format, or of no known range.
    """
    try:
        with Image.open(path, formats=_formats(path.suffix.lower())) as file:
            # Large JPEG files are decoded at a fraction of their size, but never below twice the target.
            file.draft(None, (2 * image_size, 2 * image_size))
            image = _as_mode(file, "RGB" if channels == 3 else "L")
        side = min(image.size)
        if image.size != (image_size, image_size):
            # The same as resizing all and cropping, without the pixels that a long strip would throw away.
            left, top = (image.width - side) / 2, (image.height - side) / 2
            image = image.resize(
                (image_size, image_size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
            )
    except _DAMAGE as error:
        raise UnreadableImageError(f"{path}: {str(error) or type(error).__name__}") from error
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _as_mode(file: Image.Image, mode: str) -> Image.Image:
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I;16") or (image.mode == "I" and file.format == "PNG"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"the range of a 32-bit image (mode {image.mode}) is not known")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def decode_batch(root: Path, paths: Sequence[str], image_size: int, channels: int) -> Tensor:
    """Decode the files one after the other into (B, C, image_size, image_size), uint8.

    Raises:
        UnreadableImageError: At the first file that cannot be decoded.
    """
    images = torch.empty(len(paths), channels, image_size, image_size, dtype=torch.uint8)
    for row, path in zip(images.numpy(), paths, strict=True):
        row[...] = decode_image(root / path, image_size, channels)
    return images


def decode_chunks(
    root: Path, paths: Sequence[str], image_size: int, channels: int, progress: Progress | None = None
) -> Iterator[Chunk]:
    """Decode many files with a thread a core, in order, holding only a few chunks at a time.

    Pillow lets go of the interpreter while it decodes and resizes, so threads do; what cannot be decoded is
    reported in the chunk instead of raised, for a user wants to hear of all such files at once.
    """

    def work(start: int) -> Chunk:
        names = paths[start : start + CHUNK]
        images = torch.zeros(len(names), channels, image_size, image_size, dtype=torch.uint8)
        unreadable = {}
        for row, name in zip(images.numpy(), names, strict=True):
            try:
                row[...] = decode_image(root / name, image_size, channels)
            except UnreadableImageError as error:
                unreadable[name] = str(error.__cause__) or type(error.__cause__).__name__
        return Chunk(start, images, unreadable)

    workers = available_cores()
    pending: deque[Future[Chunk]] = deque()
    starts = iter(range(0, len(paths), CHUNK))
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in starts:
                pending.append(pool.submit(work, start))
                if len(pending) < 4 * workers:
                    continue
                yield _report(pending.popleft().result(), len(paths), progress)
            while pending:
                yield _report(pending.popleft().result(), len(paths), progress)
        finally:
            for future in pending:
                future.cancel()


def _report(chunk: Chunk, total: int, progress: Progress | None) -> Chunk:
    if progress is not None:
        progress(chunk.start + len(chunk.images), total)
    return chunk


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_size(root: Path, paths: Sequence[str]) -> int:
    """Return the median of the shorter sides of up to 1,000 evenly spaced images, at most 224.

    Only headers are read. Files whose header cannot be read do not count here; decoding names them.

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
        raise UnreadableImageError(f"no image under {root} can be read: are these image files?")
    return min(224, sorted(sides)[len(sides) // 2])


def image_suffixes() -> frozenset[str]:
    """Return the file suffixes, in lower case and with their dot, that Pillow can decode by itself."""
    kinds = _own_formats()
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in kinds)


@cache
def _formats(suffix: str) -> tuple[str, ...]:
    """Return the formats to try on a file, its suffix's first, which takes a third of the time."""
    first = Image.registered_extensions().get(suffix)
    return tuple(sorted(_own_formats(), key=lambda kind: (kind != first, kind)))


@cache
def _own_formats() -> frozenset[str]:
    Image.init()
    return frozenset(Image.OPEN) - {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # these need other programs
