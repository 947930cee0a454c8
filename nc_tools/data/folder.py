"""Image folders: one folder per class, in folders for training and testing, or in a single tree that is split here."""

from __future__ import annotations

from pathlib import Path

import torch

from nc_tools.data.class_folders import ClassFolder, Part
from nc_tools.data.folder_layout import find_layout
from nc_tools.data.folder_walk import FolderWalk
from nc_tools.data.listing import (
    ListedImages,
    Listing,
    Reading,
    check_classes,
    crossing_sentences,
    similar_classes,
    split_listing,
    with_name_groups,
    without_untrained,
)
from nc_tools.data.short_list import short_list
from nc_tools.data.source_names import is_archive


def list_folder(
    root: Path, class_folder: ClassFolder | None = None, *, skip_missing: bool = False, check: bool = True
) -> ListedImages:
    """List the classes and files of an image folder.

    Folders for training and testing are found by their names (see :func:`find_layout`). A folder without such folders
    is one set of images, which is split 80 / 20 by class, the same for every seed. Hidden files and folders, files that
    are not images, and folders of masks or annotations are left out. Images may lie at any depth below the folder of
    their class.

    Args:
        root: The folder.
        class_folder: Which folder of a path names the class, if the names leave it open: "first" or "last".
        skip_missing: Leave out test images of classes that have no training image, instead of stopping.
        check: Require what a comparison needs: two classes, and a test image. Turn it off for images without labels.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no images, a class is empty, its folders cannot be classes, or a class has test images
            only.
    """
    if not root.exists():
        raise FileNotFoundError(f"the image folder {root} does not exist: check the path")
    if not root.is_dir():
        what = "unpack the archive" if is_archive(root) else f"for a list of images and labels write 'table:{root}'"
        raise ValueError(f"{root} is a file and no folder: {what}")
    layout = find_layout(root, class_folder)
    walk = FolderWalk(root)
    for part in (layout.train, layout.test):
        for folder in ("", *_folders_of(part)):
            walk.claim(folder)
    classes = tuple(sorted({*layout.train.classes, *(layout.test.classes if layout.test else ())}))
    train = _list_part(walk, layout.train, classes)
    test = None if layout.test is None else _list_part(walk, layout.test, classes)
    parts, named = with_name_groups([train] if test is None else [train, test])
    reading = Reading(layout.sentences, layout.choices).adding(*walk.sentences(), *similar_classes(classes), *named)
    if len(parts) == 1:
        listed = split_listing(root, classes, parts[0], reading)
    else:
        train, test = parts
        reading = reading.adding(*crossing_sentences(train, test))
        listed = without_untrained(ListedImages(root, classes, train, test, reading), skip_missing=skip_missing)
    if check:
        check_classes(listed)
    return listed


def _folders_of(part: Part | None) -> list[str]:
    if part is None:
        return []
    return [part.folder] + [folder for folders in part.classes.values() for folder in folders]


def _list_part(walk: FolderWalk, part: Part, classes: tuple[str, ...]) -> Listing:
    files = {
        name: [path for folder in folders for path in walk.images(folder)] for name, folders in part.classes.items()
    }
    if empty := [name for name, paths in files.items() if not paths]:
        raise ValueError(
            f"every class folder needs at least one image, but in {walk.root / part.folder} there is none in "
            f"{short_list(empty)}: add images or remove these folders"
        )
    sizes = torch.tensor([len(paths) for paths in files.values()])
    labels = torch.tensor([classes.index(name) for name in files], dtype=torch.int64).repeat_interleave(sizes)
    return Listing(part.name, tuple(path for paths in files.values() for path in paths), labels)
