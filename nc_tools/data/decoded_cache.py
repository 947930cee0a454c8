"""Decoded folders on disk, so that many runs and worker processes decode once.

A cache file is rebuilt unless three things hold: its key is that of the files as they are now (paths, sizes,
times, image size, rule), safetensors finds it whole, and the pixels still have the hashes that were stored
with them. It is written beside and moved into place, so that two processes may build it at once and a third
never sees half of it.
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
from nc_tools.data.decode import DECODE_RULE
from nc_tools.data.image_set import digests


def files_key(root: Path, paths: Sequence[str], image_size: int, channels: int) -> str:
    """Return a hash of how the files are now: their paths, sizes, times, and how they are decoded."""
    key = hashlib.sha256(json.dumps([DECODE_RULE, image_size, channels]).encode())
    for path in paths:
        stat = os.stat(f"{root}/{path}")  # noqa: PTH116 (a Path per file would cost more than the call)
        key.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return key.hexdigest()


def cache_file(folder: Path, root: Path, split: str, image_size: int, channels: int, form: str) -> Path:
    """Return the one place where this split of this folder at this size is cached, so that changes overwrite.

    ``form`` tells pixels from mere statistics.
    """
    place = hashlib.sha256(f"{root.resolve()}\0{split}".encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", root.name)
    return folder / f"{name}-{split}-{image_size}x{channels}-{place}.{form}.safetensors"


def read_cache(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return the cached tensors and the unreadable files, or None if no cache can be trusted."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        unreadable: dict[str, str] = json.loads(header["unreadable"])
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    if "images" in tensors and not torch.equal(digests(tensors["images"]), tensors["hashes"]):
        return None
    return tensors, unreadable


def write_cache(path: Path, key: str, tensors: Mapping[str, Tensor], unreadable: Mapping[str, str]) -> None:
    """Write a cache file atomically; a folder that cannot be written costs a warning, not the run."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            save_file(dict(tensors), part, metadata={"key": key, "unreadable": json.dumps(dict(unreadable))})
    except (OSError, SafetensorError) as error:
        warnings.warn(f"the decoded images could not be cached in {path.parent}: {error}", stacklevel=2)
