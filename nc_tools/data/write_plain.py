"""Write a data source as a folder for each part and class, and a table of all images."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

from nc_tools.data.listing import ListedImages, Listing

TABLE_NAME = "labels.csv"


def write_plain(listed: ListedImages, folder: Path) -> list[str]:
    """Copy the images of a source to ``FOLDER/train/CLASS`` and ``FOLDER/test/CLASS``, with ``FOLDER/labels.csv``.

    The table has the columns path, label, split and, with groups, group. The source ``table:FOLDER/labels.csv`` has the
    same images, labels, split and groups as the one that was written. So has ``imagefolder:FOLDER``, without groups, if
    every class name can be the name of a folder.

    Args:
        listed: The images.
        folder: A folder that does not exist or is empty.

    Returns:
        Sentences about what was written.

    Raises:
        ValueError: If the folder holds something.
        OSError: If a file cannot be read or written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"cannot write to {folder}, which exists and is not an empty folder: give another one")
    names = _folder_names(listed.classes)
    rows: list[list[str]] = []
    for part, listing in (("train", listed.train), ("test", listed.test)):
        rows += _copy_part(listed, listing, part, names, folder)
    grouped = listed.train.groups is not None
    with (folder / TABLE_NAME).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", *(["group"] if grouped else [])])
        writer.writerows(rows)
    use = f"use them with --data table:{folder / TABLE_NAME}"
    if names == list(listed.classes) and not grouped:
        use += f" or --data imagefolder:{folder}"
    return [f"{len(rows):,} images and {TABLE_NAME} are in {folder}: {use}"]


def _copy_part(listed: ListedImages, listing: Listing, part: str, names: list[str], folder: Path) -> list[list[str]]:
    rows = []
    taken: set[str] = set()
    groups = listing.groups or [""] * len(listing.paths)
    for path, k, group in zip(listing.paths, listing.labels.tolist(), groups, strict=True):
        place = f"{part}/{names[k]}/{_file_name(path, taken, f'{part}/{names[k]}')}"
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(listed.root / path, folder / place)
        rows.append([place, listed.classes[k], part, *([] if listing.groups is None else [group])])
    return rows


def _file_name(path: str, taken: set[str], below: str) -> str:
    """Return a name for an image that is not in ``taken``, and add its path, in lower case, to ``taken``."""
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    number = 1
    while f"{below}/{name}".lower() in taken:
        number += 1
        name = f"{stem}-{number}{dot}{suffix}"
    taken.add(f"{below}/{name}".lower())
    return name


def _folder_names(classes: tuple[str, ...]) -> list[str]:
    """Return the name of a folder for each class: the class name if possible, and no two that differ only in case."""
    names: list[str] = []
    for k, name in enumerate(classes):
        plain = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name).strip(" .") or "_"
        if plain != name or plain.lower() in (other.lower() for other in names):
            plain = f"{plain}-{k}"
        names.append(plain)
    return names
