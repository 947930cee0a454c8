"""A cache of decoded image folders on disk, so that many runs and worker processes decode them once.

A cache file is used only if its key matches the image files as they are now (paths, sizes, times, image size, decoding
rule), safetensors can read it, and its pixels still have the hashes that were stored with them. Otherwise it is written
again. Writing is atomic, so that several processes can write it at the same time and none reads a partial file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.regular_file import check_regular
from nc_tools.data.decode import DECODE_RULE
from nc_tools.data.image_set import digests
from nc_tools.type_check import matches


def files_key(root: Path, paths: Sequence[str], image_size: int, channels: int) -> str:
    """Return a hash of the state of the files: their paths, sizes and times, and how they are decoded."""
    key = hashlib.sha256(json.dumps([DECODE_RULE, image_size, channels]).encode())
    for path in paths:
        stat = os.stat(f"{root}/{path}")  # noqa: PTH116 (making a Path for each file costs more than the call)
        key.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return key.hexdigest()


def cache_file(folder: Path, root: Path, split: str, image_size: int, channels: int, form: str) -> Path:
    """Return the path of the cache file for one split of an image folder at one image size.

    It does not depend on the state of the files, so that a new cache file replaces an old one. ``form`` is "pixels", or
    "scan" for statistics without pixels.
    """
    location = hashlib.sha256(f"{root.resolve()}\0{split}".encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", root.name)
    return folder / f"{name}-{split}-{image_size}x{channels}-{location}.{form}.safetensors"


def read_cache(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return the cached tensors and the unreadable files, or None if there is no valid cache file."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        unreadable: dict[str, str] = json.loads(header["unreadable"])
        intact = "images" not in tensors or torch.equal(digests(tensors["images"]), tensors["hashes"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError):
        return None
    return (tensors, unreadable) if intact and matches(unreadable, Mapping[str, str]) else None


def write_cache(path: Path, key: str, tensors: Mapping[str, Tensor], unreadable: Mapping[str, str]) -> None:
    """Write a cache file atomically; if that fails, warn and continue without a cache."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            save_file(dict(tensors), part, metadata={"key": key, "unreadable": json.dumps(dict(unreadable))})
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"cannot write decoded images to the cache folder {path.parent} ({error}): the next run decodes them again",
            stacklevel=2,
        )
