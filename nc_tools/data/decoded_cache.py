"""A cache of decoded image folders on disk, so that many runs and worker processes decode them once.

A cache file is used only if safetensors can read it and its key matches the image files as they are now: their paths,
sizes and times, the image size and the decoding rule. Pixels must also have the hashes that were stored with them.
Otherwise the file is written again. Writing is atomic, so that several processes can write it at the same time and none
reads a partial file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.regular_file import check_regular
from nc_tools.data.image_set import digests
from nc_tools.decoding.image_file import DECODE_RULE
from nc_tools.type_check import matches


class CachedImages(NamedTuple):
    """The contents of a cache file.

    Attributes:
        tensors: "images" (N, C, H, W), uint8, or "sums" (N, C, 2), int64; and "hashes" (N, 32), uint8.
        unreadable: The reason for each file that cannot be decoded, by its path.
        converted: How many images had another form, such as "gray", by that form.
    """

    tensors: dict[str, Tensor]
    unreadable: dict[str, str]
    converted: dict[str, int]


def files_key(root: Path, paths: Sequence[str], image_size: int, channels: int, interpolation: str = "bilinear") -> str:
    """Return a hash of the state of the files: their paths, sizes and times, and how they are decoded."""
    key = hashlib.sha256(json.dumps([DECODE_RULE, image_size, channels, interpolation]).encode())
    for path in paths:
        try:
            stat = os.stat(f"{root}/{path}")  # noqa: PTH116 (making a Path for each file costs more than the call)
        except OSError:  # a link that leads nowhere: decoding says so
            key.update(f"{path}\0broken\n".encode())
            continue
        key.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return key.hexdigest()


def cache_file(folder: Path, root: Path, split: str, image_size: int, channels: int, form: str) -> Path:
    """Return the path of the cache file for one split of an image folder at one image size.

    It does not depend on the state of the files, so that a new cache file replaces an old one.

    Args:
        folder: Folder of the cache.
        root: Folder of the images.
        split: Name of the split.
        image_size: Side in pixels.
        channels: 3 or 1.
        form: Name of the contents, such as "bilinear-pixels", or "bilinear-scan" for statistics without pixels.
    """
    location = hashlib.sha256(f"{root.resolve()}\0{split}".encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", root.name)
    return folder / f"{name}-{split}-{image_size}x{channels}-{location}.{form}.safetensors"


def read_cache(path: Path, key: str, *, pixels: bool = True) -> CachedImages | None:
    """Return the contents of a cache file; None if there is no valid one.

    Args:
        path: The cache file.
        key: The hash that :func:`files_key` gives for the image files as they are now.
        pixels: Whether the file must hold images; False for a file with sums only.
    """
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("key") != key:
                return None
            content, hashes = (file.get_tensor(name) for name in ("images" if pixels else "sums", "hashes"))
        unreadable: dict[str, str] = json.loads(header["unreadable"])
        converted: dict[str, int] = json.loads(header["converted"])
        intact = torch.equal(digests(content), hashes) if pixels else len(content) == len(hashes)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError):
        return None
    if not intact or not matches(unreadable, Mapping[str, str]) or not matches(converted, Mapping[str, int]):
        return None
    return CachedImages({"images" if pixels else "sums": content, "hashes": hashes}, unreadable, converted)


def write_cache(path: Path, key: str, decoded: CachedImages) -> None:
    """Write a cache file atomically; if that fails, warn and continue without a cache."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            header = {name: json.dumps(getattr(decoded, name)) for name in ("unreadable", "converted")}
            save_file(decoded.tensors, part, metadata={"key": key, **header})
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"cannot write decoded images to the cache folder {path.parent} ({error}): the next run decodes them again",
            stacklevel=2,
        )
