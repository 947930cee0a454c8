"""The class folders of one part of an image folder, and the names that cannot be classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nc_tools._support.printable import printable
from nc_tools.data.folder_walk import SIDE_FOLDERS, contents, has_utf8_name
from nc_tools.data.short_list import short_list
from nc_tools.data.split_words import split_role

ClassFolder = Literal["first", "last"]
"""Which folder of a path names the class: the first below the split, or the one that holds the image."""

_IMAGE_WORDS = frozenset(
    {"data", "image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures"}
)
_PARTS = _IMAGE_WORDS | {
    "archive",
    "batch",
    "chunk",
    "disk",
    "fold",
    "folder",
    "part",
    "parts",
    "set",
    "shard",
    "split",
}


@dataclass(frozen=True)
class Part:
    """One part of an image folder.

    Attributes:
        name: Name of the part in the cache of decoded images.
        folder: The folder that holds the class folders, relative to the root; "" for the root.
        classes: The folders of each class, relative to the root.
    """

    name: str
    folder: str
    classes: Mapping[str, tuple[str, ...]]


def class_part(root: Path, folder: str, class_folder: ClassFolder | None, sentences: list[str]) -> Part:
    """Return one part of an image folder with its class folders.

    Args:
        root: The image folder.
        folder: The folder of the part, relative to the root.
        class_folder: Which folders are the classes if the names leave it open; None raises an error then.
        sentences: A list to which a sentence about this choice is added, if there was one.

    Raises:
        ValueError: If there are no images, or the folders are no classes, or it is not clear which are.
    """
    inside = contents(root / folder)
    names = [name for name in inside.folders if name.lower() not in SIDE_FOLDERS or has_images(root / folder / name)]
    _check_any_images(root, folder, names)
    _check_names(root / folder, names)
    classes: Mapping[str, tuple[str, ...]] = {name: (f"{folder}/{name}".lstrip("/"),) for name in names}
    last = _by_last_folder(root, classes)
    unclear = _may_be_classes(root, classes, last)
    if unclear and class_folder is None:
        raise ValueError(
            f"the images in {root / folder} lie below two levels of folders, and either could be the classes: "
            f"{len(classes)} such as {short_list(list(classes), 2)}, or {len(last)} such as "
            f"{short_list(list(last), 2)}; set data.class_folder to 'first' or to 'last' (--set data.class_folder=last)"
        )
    if class_folder == "last":
        _check_names(root / folder, list(last))
        classes = last
        sentences.append(f"classes of {folder or root.name}/: the folders that hold the images (class_folder=last)")
    elif unclear:
        sentences.append(f"classes of {folder or root.name}/: the first folders (class_folder=first)")
    return Part(folder or ".", folder, classes)


def _by_last_folder(root: Path, classes: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    """Return the folders that directly hold images, grouped by their own name."""
    inner: dict[str, list[str]] = {}
    for (folder,) in classes.values():
        for leaf in _leaves(root, folder):
            inner.setdefault(leaf.rpartition("/")[2], []).append(leaf)
    return {name: tuple(folders) for name, folders in sorted(inner.items())}


def _may_be_classes(root: Path, classes: Mapping[str, tuple[str, ...]], last: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether the folders that hold the images, and not the folders above them, may be the classes.

    They may be if no first folder holds images itself, and if the folders that do all have different names and there
    are more of them than first folders. Folders with the same name, such as ``images`` or ``session1`` in every class,
    are no classes.
    """
    if any(contents(root / folder).images for (folder,) in classes.values()):
        return False
    return len(last) > len(classes) and all(len(folders) == 1 for folders in last.values())


def _leaves(root: Path, folder: str) -> list[str]:
    """Return a folder and those below it that hold images, without those that hold masks or annotations."""
    inside = contents(root / folder)
    leaves = [folder] if inside.images else []
    for name in inside.folders:
        below = f"{folder}/{name}"
        if name.lower() not in SIDE_FOLDERS and not (root / below).is_symlink():
            leaves += _leaves(root, below)
    return leaves


def has_images(folder: Path) -> bool:
    """Return whether there is an image in a folder or below it; links to folders below are not followed."""
    inside = contents(folder)
    return bool(inside.images) or any(
        has_images(folder / name) for name in inside.folders if not (folder / name).is_symlink()
    )


def _check_any_images(root: Path, folder: str, names: Sequence[str]) -> None:
    top = root / folder
    filled = [name for name in names if has_images(top / name) or (top / name).is_symlink()]
    if not filled:
        loose = contents(top).images
        if not loose:
            raise ValueError(f"{top} must hold one folder of images for each class, but no images were found")
        raise ValueError(
            f"{top} must hold one folder of images for each class, but its images are in no class folder: give their "
            f"labels as a table, table:FILE@{top}{_tables_near(root, top)}"
        )
    if empty := [name for name in names if name not in filled]:
        raise ValueError(
            f"every class folder needs at least one image, but in {top} there is none in {short_list(empty)}: "
            "add images or remove these folders"
        )


def _tables_near(root: Path, top: Path) -> str:
    tables = [
        file for folder in dict.fromkeys((top, root, root.parent)) for file in sorted(folder.iterdir())
        if file.suffix.lower() in (".csv", ".tsv", ".jsonl") and file.is_file()
    ]  # fmt: skip
    return f" (there is {short_list([str(file) for file in tables], 2)})" if tables else ""


def _check_names(top: Path, names: Sequence[str]) -> None:
    """Raise a ValueError if folders have names that classes do not have.

    These are words for a split, for images or for masks; numbered parts of one set, such as ``part1`` and ``part2``;
    and names that are not UTF-8.
    """
    if broken := [name for name in names if not has_utf8_name(name)]:
        raise ValueError(f"the name of the class folder {printable(broken[0])} in {top} is not UTF-8: rename it")
    lower = {name.lower() for name in names}
    stems = {re.sub(r"[\W_]*\d+$", "", name) for name in lower}
    what = None
    if all(split_role(name) for name in names):
        what = "the parts of a split"
    elif lower <= SIDE_FOLDERS | _IMAGE_WORDS:
        what = "images and what belongs to them"
    elif len(names) > 1 and len(stems) == 1 and not lower & stems and re.split(r"[\W_]+", stems.pop())[-1] in _PARTS:
        what = "parts of one set of images"
    if what is not None:
        shown = short_list([printable(name) for name in names])
        raise ValueError(
            f"the folders in {top} are {what} and not classes: {shown}. Give the labels as a table, "
            f"table:FILE@{top}; or, if they are classes after all, give the folders other names"
        )
