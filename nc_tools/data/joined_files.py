"""Data sets whose labels and split lie in several files of a fixed layout, instead of one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nc_tools._support.existing_file import check_file
from nc_tools.data.folder_walk import contents
from nc_tools.data.listing import ListedImages, Listing, Reading, split_listing
from nc_tools.data.short_list import quoted, short_list
from nc_tools.data.split_words import Role
from nc_tools.data.table_text import read_grids


@dataclass(frozen=True)
class _Row:
    path: str
    label: str
    role: Role | None


def list_cub(root: Path, *, skip_missing: bool) -> ListedImages:
    """List a data set in the layout of CUB-200-2011 and NABirds.

    ``images.txt`` has an id and a path below ``images/``, ``image_class_labels.txt`` an id and a class,
    ``train_test_split.txt`` an id and 1 for training or 0 for testing, ``classes.txt`` a class and its name.

    Args:
        root: The folder of these files, or the one above.
        skip_missing: Leave out rows without an image, instead of stopping.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the files do not fit each other.
    """
    top = _folder_with(root, "images.txt")
    paths, labels = _pairs(top / "images.txt"), _pairs(top / "image_class_labels.txt")
    parts, names = _pairs(top / "train_test_split.txt"), _pairs(top / "classes.txt")
    rows = []
    for key, path in paths.items():
        for file, entry in (("image_class_labels.txt", labels), ("train_test_split.txt", parts)):
            if key not in entry:
                raise ValueError(f"{top / file} has no line for the image {key}, which images.txt has: add it")
        if labels[key] not in names:
            raise ValueError(f"{top / 'classes.txt'} has no name of the class {labels[key]!r}: add it")
        rows.append(_Row(f"images/{path}", names[labels[key]], "train" if parts[key] == "1" else "test"))
    return _listed(top, rows, list(names.values()), "cub: images.txt and its files", skip_missing=skip_missing)


def list_pets(root: Path, *, skip_missing: bool) -> ListedImages:
    """List a data set in the layout of the Oxford-IIIT pets: the class is part of the name, as in ``Abyssinian_100``.

    Each line of ``annotations/trainval.txt`` and ``annotations/test.txt`` begins with the name of an image in
    ``images/``. Without these two files, ``annotations/list.txt`` is read instead, and the images are split 80 / 20.

    Args:
        root: The folder of ``images`` and ``annotations``, or the one above.
        skip_missing: Leave out names without an image, instead of stopping.

    Raises:
        FileNotFoundError: If the lists are missing.
        ValueError: If a name does not end in a number.
    """
    top = _folder_with(root, "annotations")
    lists: dict[str, Role | None] = {"trainval.txt": "train", "test.txt": "test"}
    if not all((top / "annotations" / name).is_file() for name in lists):
        lists = {"list.txt": None}
    suffixes = {Path(name).stem: name for name in contents(top / "images").images}
    rows = []
    for name, role in lists.items():
        for stem in _first_words(top / "annotations" / name):
            label, _, number = stem.rpartition("_")
            if not label or not number.isdecimal():
                raise ValueError(f"{top / 'annotations' / name}: the name {quoted(stem)} must read CLASS_NUMBER")
            rows.append(_Row(f"images/{suffixes.get(stem, f'{stem}.jpg')}", label, role))
    classes = sorted({row.label for row in rows})
    return _listed(top, rows, classes, f"pets: annotations/{' and '.join(lists)}", skip_missing=skip_missing)


def list_tiny_imagenet(root: Path, *, skip_missing: bool) -> ListedImages:
    """List a data set in the layout of Tiny ImageNet: ``train/WNID/images``, and ``val/val_annotations.txt``.

    Args:
        root: The folder of ``train`` and ``val``, or the one above.
        skip_missing: Leave out rows without an image, instead of stopping.

    Raises:
        FileNotFoundError: If a folder or file is missing.
        ValueError: If a class of ``val`` is not in ``train``.
    """
    top = _folder_with(root, "val/val_annotations.txt")
    if not (top / "train").is_dir():
        raise FileNotFoundError(f"{top} has no folder train/: check the path")
    rows = [
        _Row(f"train/{name}/images/{image}", name, "train")
        for name in contents(top / "train").folders
        for image in contents(top / "train" / name / "images").images
    ]
    classes = sorted({row.label for row in rows})
    for line in _lines(top / "val" / "val_annotations.txt"):
        image, label, *_ = line.split("\t")
        if label not in classes:
            raise ValueError(
                f"{top / 'val' / 'val_annotations.txt'}: the class {quoted(label)} is not in train/: add it"
            )
        rows.append(_Row(f"val/images/{image}", label, "test"))
    return _listed(top, rows, classes, "tiny-imagenet: train/ and val_annotations.txt", skip_missing=skip_missing)


JOINS: dict[str, Callable[..., ListedImages]] = {
    "cub": list_cub,
    "pets": list_pets,
    "tiny-imagenet": list_tiny_imagenet,
}
"""The function that lists a data set of each layout."""


def _listed(top: Path, rows: Sequence[_Row], order: Sequence[str], what: str, *, skip_missing: bool) -> ListedImages:
    """Return the images of some rows; classes without a row are left out."""
    there = [row for row in rows if (top / row.path).is_file()]
    missing = [row.path for row in rows if not (top / row.path).is_file()]
    if missing and not skip_missing:
        raise ValueError(
            f"{len(missing):,} of {len(rows):,} images that are listed do not exist in {top}, such as {missing[0]}: "
            "add them, or leave them out with --skip-missing"
        )
    used = {row.label for row in there}
    classes = tuple(dict.fromkeys(name for name in order if name in used))
    index = {name: k for k, name in enumerate(classes)}
    sentences = [f"{what}: {len(rows):,} images"]
    sentences += [f"{len(missing):,} of them do not exist and are left out"] if missing else []

    def part(role: Role | None) -> Listing:
        chosen = [row for row in there if row.role == role]
        labels = torch.tensor([index[row.label] for row in chosen], dtype=torch.int64)
        return Listing(role or "all", tuple(row.path for row in chosen), labels)

    if any(row.role is None for row in there):
        return split_listing(top, classes, part(None), Reading(tuple(sentences)))
    return ListedImages(top, classes, part("train"), part("test"), Reading(tuple(sentences), {"layout": what}))


def _folder_with(root: Path, name: str) -> Path:
    """Return the folder that holds a file or folder: the root, or the only folder in it that does."""
    if not root.is_dir():
        raise FileNotFoundError(f"the folder {root} does not exist: check the path")
    if (root / name).exists():
        return root
    below = [folder for folder in contents(root).folders if (root / folder / name).exists()]
    if len(below) != 1:
        names = short_list(sorted(path.name for path in root.iterdir()))
        raise FileNotFoundError(f"{root} has no {name}; it holds {names}: check the path")
    return root / below[0]


def _lines(file: Path) -> list[str]:
    check_file(file, "list")
    return [row[0] for row in read_grids(file)[-1].rows]  # whole lines, without comments and blank lines


def _pairs(file: Path) -> dict[str, str]:
    """Return the rest of each line of a file by its first word."""
    pairs = {}
    for line in _lines(file):
        key, _, rest = line.partition(" ")
        pairs[key] = rest.strip()
    return pairs


def _first_words(file: Path) -> list[str]:
    return [line.split()[0] for line in _lines(file)]
