"""Decode many image files to tensors, in the threads and processes of :mod:`nc_tools.decoding`."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from nc_tools._support.available_cores import available_cores
from nc_tools.decoding.image_file import DAMAGE, FileInterpolation, UnreadableImageError
from nc_tools.decoding.pool import by_processes, decode_rows, decoding_pool
from nc_tools.decoding.request import DecodingRequest

Progress: TypeAlias = Callable[[int, int], None]
"""Called as ``progress(done, total)``."""

CHUNK = 64


class Chunk(NamedTuple):
    """Consecutive image files of a list, decoded.

    Attributes:
        start: Position of the first file in the list.
        images: (B, C, side, side), uint8; unreadable files are black.
        unreadable: The reason for each file that cannot be decoded, by its name.
        converted: How many images had another form, such as "gray", by that form.
        measured: What ``measure`` of :func:`decode_chunks` returned for the readable images.
    """

    start: int
    images: Tensor
    unreadable: dict[str, str]
    converted: Counter[str]
    measured: tuple[Tensor, ...] = ()

    def readable(self, names: Sequence[str]) -> Tensor:
        """Return the images of the files that could be decoded; ``names`` are all files of this chunk, in order."""
        if not self.unreadable:
            return self.images
        return self.images[[name not in self.unreadable for name in names]]


def decode_batch(
    root: Path, paths: Sequence[str], image_size: int, channels: int, interpolation: FileInterpolation = "bilinear",
    *, in_process: bool = False, pinned: bool = False,
) -> Tensor:  # fmt: skip
    """Decode files into one tensor (B, C, image_size, image_size), uint8.

    Args:
        root: Folder that the paths are relative to.
        paths: B paths with forward slashes.
        image_size: Side in pixels.
        channels: 3 or 1.
        interpolation: Of the resizing.
        in_process: Decode in the process that belongs to this thread of the decoding pool.
        pinned: Use page-locked memory, from which a GPU copies without waiting.

    Raises:
        UnreadableImageError: For the first file that cannot be decoded.
    """
    images = torch.empty(len(paths), channels, image_size, image_size, dtype=torch.uint8, pin_memory=pinned)
    request = DecodingRequest(str(root), paths, image_size, channels, interpolation)
    report = decode_rows(request, images.numpy(), in_process=in_process)
    for name, reason in report.unreadable.items():
        raise UnreadableImageError(f"{root / name}: {reason}")
    return images


def decode_chunks(
    root: Path, paths: Sequence[str], image_size: int, channels: int, progress: Progress | None = None,
    interpolation: FileInterpolation = "bilinear", measure: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
) -> Iterator[Chunk]:  # fmt: skip
    """Decode many files with all cores and yield them in chunks, in order.

    Large sets are decoded by processes, see :mod:`nc_tools.decoding.pool`. Only a few chunks are in memory at a time.
    Files that cannot be decoded are reported in the chunk and do not raise, so that all of them can be reported
    together.

    Args:
        root: Folder that the paths are relative to.
        paths: Paths with forward slashes.
        image_size: Side in pixels.
        channels: 3 or 1.
        progress: Called as ``progress(done, total)``.
        interpolation: Of the resizing.
        measure: Called with the readable images of each chunk, in the threads that decode.
    """

    def decode_chunk(start: int) -> Chunk:
        names = paths[start : start + CHUNK]
        images = torch.empty(len(names), channels, image_size, image_size, dtype=torch.uint8)
        request = DecodingRequest(str(root), names, image_size, channels, interpolation)
        report = decode_rows(request, images.numpy(), in_process=by_processes(len(paths)))
        chunk = Chunk(start, images, report.unreadable, Counter(report.converted))
        return chunk if measure is None else chunk._replace(measured=measure(chunk.readable(names)))

    pending: deque[Future[Chunk]] = deque()
    pool, ahead = decoding_pool(), 2 * available_cores()
    try:
        for start in range(0, len(paths), CHUNK):
            pending.append(pool.submit(decode_chunk, start))
            if len(pending) > ahead:
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


def default_size(root: Path, paths: Sequence[str], limit: int) -> int:
    """Return the default image side of a folder: the median of the shorter sides of its images, at most ``limit``.

    Only the headers of fewer than 2,000 evenly spaced files are read. Unreadable ones are skipped here; decoding
    reports them.

    Args:
        root: Folder that the paths are relative to.
        paths: Paths with forward slashes.
        limit: Largest side in pixels.

    Raises:
        UnreadableImageError: If no header can be read.
    """
    sides = []
    for path in paths[:: max(1, len(paths) // 1000)]:
        try:
            with Image.open(root / path) as image:
                sides.append(min(image.size))
        except DAMAGE:
            continue
    if not sides:
        raise UnreadableImageError(
            f"none of the files under {root} can be read as an image: open one in an image viewer, or "
            "choose another folder"
        )
    return min(limit, sorted(sides)[len(sides) // 2])
