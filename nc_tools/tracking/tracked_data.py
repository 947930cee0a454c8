"""The data of a run of your own training loop: a name, and a digest that changes with the content."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class TrackedData:
    """The data that a run was trained on. MLflow shows it, and comparisons pair no runs whose digests differ.

    Args:
        name: Name of the data set.
        digest: A text that changes with the content, such as a checksum or a version. Runs of two arms are not paired
            at a seed where their digests differ.

    Raises:
        ValueError: If name or digest is empty.
        TypeError: If one of them is not a text.

    Example:
        >>> TrackedData("photos", digest="2026-11-01")
        TrackedData(name='photos', digest='2026-11-01')
    """

    name: str
    digest: str

    def __post_init__(self) -> None:
        """Check that both are non-empty texts."""
        for what, text in (("name", self.name), ("digest", self.digest)):
            if not isinstance(text, str):
                raise TypeError(f"the {what} of tracked data must be a text, got {type(text).__name__}")
            if not text.strip():
                raise ValueError(f"the {what} of tracked data must not be empty: give one, or use TrackedData.of")

    @classmethod
    def of(cls, name: str, *parts: Any) -> Self:
        """Return data with a digest that is computed from its content (SHA-256).

        The digest depends on the order of the parts and of their rows, not on where a file lies.

        Args:
            name: Name of the data set.
            parts: Tensors and arrays, such as images and labels, and paths of files and folders. A folder counts with
                the names and contents of all its files.

        Raises:
            FileNotFoundError: If there is no such file.
            TypeError: If a part is of another type, or an array of Python objects.
            ValueError: If there is no part, or a folder without files.

        Example:
            >>> import torch
            >>> images, labels = torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])
            >>> TrackedData.of("zeros", images, labels) == TrackedData.of("zeros", images.clone(), labels)
            True
            >>> TrackedData.of("zeros", images, labels) == TrackedData.of("zeros", images, 1 - labels)
            False
        """
        if not parts:
            raise ValueError(f"the digest of {name!r} needs data, got none: give tensors, arrays or paths")
        digest = hashlib.sha256()
        for part in parts:
            digest.update(_content(part))
        return cls(name, digest.hexdigest())


def _content(part: Any) -> bytes:
    """Return the SHA-256 hash of one part's content."""
    torch: Any = sys.modules.get("torch")  # if it was never imported, no part is a tensor; the same for numpy
    np: Any = sys.modules.get("numpy")
    if isinstance(part, str | Path):
        return _path_content(Path(part))
    if np is not None and isinstance(part, np.ndarray):
        if part.dtype.hasobject:
            raise TypeError("an array of Python objects has no content of its own: give numbers, or a file")
        values = np.ascontiguousarray(part)
        return hashlib.sha256(f"{values.dtype.str} {values.shape} ".encode() + values.tobytes()).digest()
    if torch is not None and isinstance(part, torch.Tensor):
        tensor = part.detach().cpu().contiguous()
        own = tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + own).digest()
    raise TypeError(
        f"data must be tensors, arrays, or paths of files and folders, got {type(part).__name__}: give one of these, "
        "or TrackedData(name, digest)"
    )


def _path_content(path: Path) -> bytes:
    if not path.is_dir():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").digest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise ValueError(f"the folder {path} holds no file: give the folder of the data")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode("utf-8", "surrogateescape") + b"\0")
        digest.update(_path_content(file))
    return digest.digest()
