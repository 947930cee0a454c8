"""mistakes.safetensors: small pictures of the test images that a run takes for a wrong class with most confidence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.regular_file import check_regular
from nc_tools._support.short_repr import short_repr
from nc_tools.type_check import matches

MISTAKES = "mistakes.safetensors"
PICTURE_SIDE = 64
"""Largest side of a picture in pixels."""

_MOST = 1000
_MOST_BYTES = _MOST * 3 * PICTURE_SIDE**2 + 2**20


@dataclass(frozen=True)
class MistakePictures:
    """The M test images in the mistakes.safetensors of one run.

    Attributes:
        index: Their indices in the test set (M,), int64.
        paths: Their paths in the folder of the data; empty if they have none.
        images: Their pixels (M, C, H, W), uint8, with C of 1 or 3, and H and W of at most :data:`PICTURE_SIDE`; None
            if there are none, as for embeddings.
    """

    index: NDArray[np.int64]
    paths: tuple[str, ...] = ()
    images: NDArray[np.uint8] | None = None


def write_mistake_pictures(folder: Path, pictures: MistakePictures) -> None:
    """Write mistakes.safetensors into the folder of a run, whole or not at all."""
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[Any]] = {"index": pictures.index}
    if pictures.images is not None:
        tensors["images"] = np.ascontiguousarray(pictures.images)
    with atomic_write(folder / MISTAKES) as part:
        save_file(tensors, part, metadata={"paths": json.dumps(pictures.paths)})


def read_mistake_pictures(folder: Path) -> MistakePictures | None:
    """Read mistakes.safetensors of a run; None if it has none.

    Raises:
        DamagedFileError: If the file is damaged, or does not hold what :func:`write_mistake_pictures` writes.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / MISTAKES
    if not path.exists() and not path.is_symlink():
        return None
    try:
        check_regular(path, max_bytes=_MOST_BYTES)
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            index = file.get_tensor("index")
            images = file.get_tensor("images") if "images" in names else None
            paths = json.loads((file.metadata() or {}).get("paths", "[]"))
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # safetensors raises an AttributeError for a type of number that NumPy does not have.
        raise DamagedFileError(f"{path.name} cannot be read ({short_repr(str(error))})") from error
    if index.dtype != np.int64 or index.ndim != 1 or len(index) > _MOST:
        raise DamagedFileError(f"index in {path.name} must be int64 (M,), got {index.dtype} {index.shape}")
    if images is not None and not _is_pictures(images, len(index)):
        raise DamagedFileError(
            f"images in {path.name} must be uint8 ({len(index)}, 1 or 3, H, W) of at most {PICTURE_SIDE} pixels a side"
            f", got {images.dtype} {images.shape}"
        )
    if not matches(paths, list[str]) or len(paths) not in (0, len(index)):
        raise DamagedFileError(f"paths in {path.name} must be {len(index)} texts, got {short_repr(paths)}")
    return MistakePictures(index, tuple(paths), images)


def _is_pictures(images: NDArray[Any], count: int) -> bool:
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != count:
        return False
    _, channels, height, width = images.shape
    return channels in (1, 3) and 1 <= height <= PICTURE_SIDE and 1 <= width <= PICTURE_SIDE
