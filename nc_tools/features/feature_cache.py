"""A cache of features on disk, one row for each image that a backbone has seen, found by the content of the image.

The rows of one backbone with one preprocessing are in one folder. They are appended in chunks, and a chunk counts once
its line in ``chunks.jsonl`` is written. What a killed process or a full disk left after the last complete chunk is cut
off at the next start, and extraction goes on from there. Each line holds a checksum of its chunk, which is tested at
every start.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from nc_tools._support.atomic_write import atomic_write

_DIGEST = 32  # bytes of a SHA-256
_DTYPES: dict[str, Any] = {"float16": np.dtype(np.float16), "float32": np.dtype(np.float32)}


@dataclass(frozen=True)
class RowsFile:
    """A file of features, row by row.

    Attributes:
        path: The file.
        dtype: "float16" or "float32".
        width: D.
        rows: Number of rows that are complete.
    """

    path: str
    dtype: str
    width: int
    rows: int

    def open(self) -> Tensor:
        """Return the rows (N, D), memory-mapped: nothing is read until it is used, and processes share the memory."""
        if not self.rows:
            return torch.empty(0, self.width, dtype=getattr(torch, self.dtype))
        # Copy on write: PyTorch has no read-only tensors.
        mapped = np.memmap(self.path, _DTYPES[self.dtype], mode="c", shape=(self.rows, self.width))
        return torch.from_numpy(mapped)


class FeatureCache:
    """The cached features of one backbone and preprocessing. Used as a context manager, which locks the folder.

    Files: ``recipe.json`` (what the features are and how they were computed), ``rows.bin`` (features, row by row),
    ``digests.bin`` (the SHA-256 of the image of each row), ``chunks.jsonl`` (one line for each complete chunk).

    Args:
        root: Folder of all caches.
        key: What decides the features, such as the hash of the weights and the preprocessing; its hash names the
            folder.
        width: D.
        dtype: "float16" or "float32", as the rows are stored.

    Example:
        >>> import tempfile
        >>> digests, features = torch.zeros(1, 32, dtype=torch.uint8), torch.ones(1, 4)
        >>> with FeatureCache(Path(tempfile.mkdtemp()), {"model": "m"}, width=4) as cache:
        ...     cache.append(digests, features)
        ...     cache.rows_of(digests).tolist(), cache.features().shape
        ([0], torch.Size([1, 4]))
    """

    def __init__(self, root: Path, key: Mapping[str, Any], *, width: int, dtype: str = "float16") -> None:
        decisive = json.dumps([dict(key), width, dtype], sort_keys=True)
        self.folder = root / hashlib.sha256(decisive.encode()).hexdigest()[:16]
        self.width = width
        self.dtype = _DTYPES[dtype]
        self._key = dict(key)
        self._places: dict[bytes, int] = {}
        self._lock = FileLock(root / f".{self.folder.name}.lock")

    def __enter__(self) -> FeatureCache:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __len__(self) -> int:
        return len(self._places)

    def rows_of(self, digests: Tensor) -> Tensor:
        """Return the row of each digest (N, 32), int64 (N,); -1 for an image that is not in the cache."""
        packed = digests.contiguous().numpy().tobytes()
        positions = [self._places.get(packed[at : at + _DIGEST], -1) for at in range(0, len(packed), _DIGEST)]
        return torch.tensor(positions, dtype=torch.int64)

    def append(self, digests: Tensor, features: Tensor) -> None:
        """Append a chunk: the features (B, D) of images that are not in the cache, with their digests (B, 32).

        Raises:
            OSError: If the disk is full; the chunks before are kept.
            OverflowError: If a feature is beyond the largest number of the stored type, 65,504 in float16.
        """
        with np.errstate(over="ignore"):
            rows = features.detach().cpu().float().numpy().astype(self.dtype)
        if not np.isfinite(rows).all():
            raise OverflowError(f"a feature is not finite, or too large for {self.dtype.name}")
        parts = {"rows.bin": rows.tobytes(), "digests.bin": digests.contiguous().numpy().tobytes()}
        for name, content in parts.items():
            with _opened(self.folder / name) as file:
                file.seek(len(self) * (len(content) // len(rows)))
                file.truncate()  # remove what a failed write has left
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        line = json.dumps({"rows": len(rows), "sha256": _checksum(*parts.values())})
        with (self.folder / "chunks.jsonl").open("a", encoding="ascii") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._remember(parts["digests.bin"])

    def features(self) -> Tensor:
        """Return all rows (N, D), a memory-mapped file that stays valid after the cache is closed."""
        return self.rows_file.open()

    @property
    def rows_file(self) -> RowsFile:
        """The file of all rows, which another process can open."""
        return RowsFile(str(self.folder / "rows.bin"), self.dtype.name, self.width, len(self))

    def differences(self, digest: Tensor) -> list[list[str]]:
        """Return, for each other cache that holds an image, the names of what differs in its key, such as "weights".

        Args:
            digest: SHA-256 of the image (32,), uint8.
        """
        packed, differences = digest.contiguous().numpy().tobytes(), []
        own = json.loads(json.dumps(self._key))  # tuples become lists, as in the file
        for path in sorted(self.folder.parent.glob("*/recipe.json")):
            if path.parent == self.folder or not _holds(path.parent / "digests.bin", packed):
                continue
            try:
                other = json.loads(path.read_bytes())["key"]
                names = [name for name in own if other.get(name) != own[name]]
            except (ValueError, KeyError, AttributeError):
                continue  # written by something else
            if names:  # otherwise only the width or the type of the rows differs
                differences.append(names)
        return differences

    def describe(self, how: Mapping[str, Any]) -> None:
        """Write ``recipe.json``: the key, and how the rows were computed (versions, device)."""
        recipe = {"key": self._key, "width": self.width, "dtype": self.dtype.name, "computed": dict(how)}
        with atomic_write(self.folder / "recipe.json") as part:
            part.write_text(json.dumps(recipe, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def clear(self) -> None:
        """Remove all rows, because the backbone now computes others. Rows in use elsewhere stay readable."""
        self._places.clear()
        for name in ("chunks.jsonl", "digests.bin", "rows.bin"):
            (self.folder / name).unlink(missing_ok=True)

    def _open(self) -> None:
        """Read the digests of all complete chunks, and cut off what follows the last of them."""
        self._places.clear()
        row_bytes = self.width * self.dtype.itemsize
        complete, kept_lines = 0, b""
        lines = _read(self.folder / "chunks.jsonl").splitlines(keepends=True)
        with _opened(self.folder / "rows.bin") as rows, _opened(self.folder / "digests.bin") as digests:
            for line in lines:
                number, checksum = _parsed(line)
                content, hashes = rows.read(number * row_bytes), digests.read(number * _DIGEST)
                if number < 1 or checksum != _checksum(content, hashes):
                    break  # a damaged chunk: its rows and those of all later chunks are computed again
                complete += number
                kept_lines += line
                self._remember(hashes)
            rows.truncate(complete * row_bytes)
            digests.truncate(complete * _DIGEST)
        if kept_lines != b"".join(lines):
            with atomic_write(self.folder / "chunks.jsonl") as part:
                part.write_bytes(kept_lines)

    def _remember(self, hashes: bytes) -> None:
        for at in range(0, len(hashes), _DIGEST):
            self._places[hashes[at : at + _DIGEST]] = len(self._places)


def _checksum(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _parsed(line: bytes) -> tuple[int, str]:
    """Return number of rows and checksum of a line; (0, "") if it is incomplete."""
    try:
        values = json.loads(line) if line.endswith(b"\n") else {}
        return int(values["rows"]), str(values["sha256"])
    except (ValueError, KeyError, TypeError):
        return 0, ""


def _holds(path: Path, digest: bytes) -> bool:
    hashes = _read(path)
    return any(hashes[at : at + _DIGEST] == digest for at in range(0, len(hashes), _DIGEST))


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _opened(path: Path) -> Any:
    path.touch()
    return path.open("r+b")
