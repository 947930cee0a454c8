"""Find the image file that each row of a table names, however the name is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from urllib.parse import unquote

from nc_tools.decoding.image_file import image_suffixes

_SAMPLE = 400
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")


@dataclass(frozen=True)
class PathMatch:
    """Which image each value of a column names.

    Attributes:
        images: For each value the position of its image among the files; None if it names no image or several.
        several: For each value that names several images: the value, and the first two of these images.
        how: How the values were read, for people.
    """

    images: list[int | None]
    several: list[tuple[str, str, str]]
    how: str

    @property
    def share(self) -> float:
        """Share of the values that name an image, or several."""
        return (sum(image is not None for image in self.images) + len(self.several)) / max(1, len(self.images))


@dataclass
class ImageIndex:
    """The image files that a table may name.

    All values of a column are compared with the files in one way. The ways are, from the most exact one on: the path
    relative to the table, the path relative to the root, the last parts of the path, only the name of the file. The
    first one is used that finds at least half as many images as the best. If only the last parts are compared and the
    folder before them is the name of a folder of the images, the image must lie in it: ``train/1.jpg`` is never
    ``test/1.jpg``. The suffix may be missing or another one of images, the case may differ, and the value may have the
    prefix that annotation tools add to the name of an uploaded file. A value without a folder may lie in any folder.

    Attributes:
        files: Paths relative to the root, with forward slashes.
        beside: The table's folder relative to the root; None if it is not below the root.
    """

    files: Sequence[str]
    beside: str | None = None
    _by_depth: dict[tuple[int, str], dict[str, list[int]]] = field(default_factory=dict)

    def match(self, values: Sequence[str]) -> PathMatch:
        """Return which image each value names."""
        cleaned = [clean_path(value) for value in values]
        sample = cleaned[:: max(1, len(cleaned) // _SAMPLE)]
        sample = [value for value in sample if self._has_name(value)] or list(
            islice((value for value in cleaned if self._has_name(value)), _SAMPLE)
        )
        if not sample:
            return PathMatch([None] * len(values), [], "names of files")  # names alone, the least exact, find none
        readings: list[tuple[str, int]] = [] if self.beside is None else [(f"{self.beside}/".lstrip("/."), 0)]
        deepest = max((file.count("/") + 1 for file in self.files), default=1)
        readings += [("", 0), *(("", depth) for depth in range(deepest, 0, -1))]
        prefix, depth = self._reading(sample, readings)
        images: list[int | None] = []
        several = []
        for value, cell in zip(cleaned, values, strict=True):
            matches = self._found(value, prefix, depth)
            if not matches and "/" not in value:
                matches = self._found(value, "", 1)
            images.append(matches[0] if len(matches) == 1 else None)
            if len(matches) > 1:
                several.append((cell, self.files[matches[0]], self.files[matches[1]]))
        return PathMatch(images, several, _how(prefix, depth))

    def _has_name(self, value: str) -> bool:
        return bool(self._found(value.rpartition("/")[2], "", 1))

    def _reading(self, sample: Sequence[str], readings: Sequence[tuple[str, int]]) -> tuple[str, int]:
        """Return the first way of reading (prefix, depth) that finds at least half as many images as the best one."""
        shares = []
        for reading in readings:
            shares.append(sum(bool(self._found(value, *reading)) for value in sample))
            if shares[-1] == len(sample):
                break
        return readings[next(i for i, share in enumerate(shares) if 2 * share >= max(shares))]

    def _found(self, value: str, prefix: str, depth: int) -> list[int]:
        """Return the positions of the files that a value names.

        ``depth`` is the number of last parts that are compared; 0 compares the whole path, after ``prefix``.
        """
        if not value or (depth and value.count("/") + 1 < depth):
            return []
        parts = value.split("/")
        key = prefix + value if not depth else "/".join(parts[-depth:])
        above = parts[-depth - 1] if 0 < depth < len(parts) else ""
        for form in ("exact", "stem", "case", "case and stem"):
            if matches := self._keys(depth, form).get(_in_form(key, form)):
                return [i for i in matches if self._may_lie_in(i, depth, above)]
        name = _UPLOAD_PREFIX.sub("", key)
        return self._keys(depth, "exact").get(name, []) if depth == 1 and name != key else []

    def _may_lie_in(self, i: int, depth: int, above: str) -> bool:
        """Return whether a file lies in the folder ``above``, or no folder of the images has that name."""
        if above not in self._folders:
            return True
        parts = self.files[i].split("/")
        return depth < len(parts) and parts[-depth - 1] == above

    @cached_property
    def _folders(self) -> set[str]:
        return {part for folder in {file.rpartition("/")[0] for file in self.files} for part in folder.split("/")} - {
            ""
        }

    def _keys(self, depth: int, form: str) -> dict[str, list[int]]:
        if (depth, form) not in self._by_depth:
            keys: dict[str, list[int]] = {}
            for i, file in enumerate(self.files):
                parts = file.split("/")
                if len(parts) >= depth:
                    keys.setdefault(_in_form("/".join(parts[-depth:] if depth else parts), form), []).append(i)
            self._by_depth[depth, form] = keys
        return self._by_depth[depth, form]


def clean_path(value: str) -> str:
    r"""Return a path with slashes, without what differs between machines.

    A drive, the scheme and query of a URL, "." and superfluous slashes are removed.

    Example:
        >>> clean_path(r"D:\photos\ape\1.jpg"), clean_path("https://x.org/my%20ape.jpg?d=3"), clean_path("./a/1.jpg")
        ('photos/ape/1.jpg', 'x.org/my ape.jpg', 'a/1.jpg')
    """
    path = value.strip().replace("\\", "/")
    if "://" in path:
        path = unquote(path.partition("://")[2].partition("?")[0].partition("#")[0])
    path = re.sub(r"^[A-Za-z]:/+", "", path)
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _in_form(key: str, form: str) -> str:
    if "stem" in form:
        stem, dot, suffix = key.rpartition(".")
        key = stem if stem and f"{dot}{suffix}".lower() in image_suffixes() else key
    return key.casefold() if "case" in form else key


def _how(prefix: str, depth: int) -> str:
    if depth == 0:
        return f"paths beside the table, in {prefix}" if prefix else "paths below the root"
    return "names of files" if depth == 1 else f"the last {depth} parts of paths"
