"""Walk through folders of images: regular files only, and each folder once, however many links lead to it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nc_tools._support.printable import printable
from nc_tools.data.short_list import short_list
from nc_tools.decoding.image_file import image_suffixes

SIDE_FOLDERS = frozenset(
    {"annotation", "annotations", "bboxes", "label", "labels", "mask", "masks", "meta", "metadata", "segmentation",
     "segmentations", "trimap", "trimaps", "xml", "xmls"}
)  # fmt: skip
"""Names, in lower case, of folders that hold data about images, such as masks or annotations, and not a class."""


def is_ignored(name: str) -> bool:
    """Return True for hidden files and folders, and for those that macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def has_utf8_name(name: str) -> bool:
    """Return whether a file name is UTF-8 text, which records, tables and caches need."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


@dataclass(frozen=True)
class Contents:
    """What lies directly in a folder, by name and sorted.

    Attributes:
        folders: Its folders.
        images: Its image files, recognized by their suffix.
        special: Things with the suffix of an image that are no regular files, such as pipes.
    """

    folders: tuple[str, ...]
    images: tuple[str, ...]
    special: tuple[str, ...]


def contents(folder: str | Path) -> Contents:
    """Return what lies directly in a folder; links are followed, and a broken link counts as a file.

    Hidden files and folders are left out.
    """
    suffixes = image_suffixes()
    folders: list[str] = []
    images: list[str] = []
    special: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_ignored(entry.name):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in suffixes:  # noqa: PTH122 (fast)
                regular = entry.is_file() or not os.path.exists(entry.path)  # noqa: PTH110 (fast)
                (images if regular else special).append(entry.name)
    return Contents(tuple(sorted(folders)), tuple(sorted(images)), tuple(sorted(special)))


@dataclass
class FolderWalk:
    """Lists the images below several folders of one source, and counts what it leaves out.

    A folder is identified by its device and inode, so that a link to a folder above, or to another class, is not
    followed.

    Attributes:
        root: Folder that paths are relative to.
    """

    root: Path
    _visited: dict[tuple[int, int], str] = field(default_factory=dict)
    _links: list[str] = field(default_factory=list)
    _special: list[str] = field(default_factory=list)
    _side: Counter[str] = field(default_factory=Counter)

    def claim(self, folder: str) -> None:
        """Note a folder that will be walked, so that links to it from other folders are not followed.

        Raises:
            ValueError: If the folder was claimed under another name before.
        """
        key = self._key(folder)
        if (other := self._visited.get(key)) is not None and other != folder:
            raise ValueError(
                f"{printable(other)} and {printable(folder)} in {self.root} are the same folder, through a link: "
                "remove one of them"
            )
        self._visited[key] = folder

    def images(self, folder: str, leave_out: Collection[str] = SIDE_FOLDERS) -> Iterator[str]:
        """Yield the paths of the images below a claimed folder, relative to the root, sorted folder by folder.

        Args:
            folder: Relative to the root.
            leave_out: Names of folders, in lower case, that are counted but not entered.
        """
        inside = contents(self.root / folder)
        self._special += [f"{folder}/{name}" for name in inside.special]
        yield from (_joined(folder, name) for name in inside.images)
        for name in inside.folders:
            below = _joined(folder, name)
            if name.lower() in leave_out:
                self._side[name.lower()] += 1
                continue
            key = self._key(below)
            if key in self._visited:
                self._links.append(f"{below} (is {self._visited[key] or 'the folder itself'})")
                continue
            self._visited[key] = below
            yield from self.images(below, leave_out)

    def sentences(self) -> list[str]:
        """Return what was left out, as sentences for people."""
        texts = []
        if self._links:
            texts.append(f"links to folders that are read already are not followed: {_listed(self._links)}")
        if self._special:
            texts.append(f"{len(self._special)} that are no regular files are left out: {_listed(self._special)}")
        if self._side:
            names = ", ".join(f"{name}/ ({count} times)" for name, count in sorted(self._side.items()))
            texts.append(f"folders inside a class that hold no images of it are left out: {names}")
        return texts

    def _key(self, folder: str) -> tuple[int, int]:
        status = os.stat(f"{self.root}/{folder}")  # noqa: PTH116 (fast)
        return status.st_dev, status.st_ino


def _joined(folder: str, name: str) -> str:
    return name if folder in ("", ".") else f"{folder}/{name}"


def _listed(names: list[str]) -> str:
    return short_list([printable(name) for name in names])
