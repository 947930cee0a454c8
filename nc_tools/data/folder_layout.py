"""Find out what the folders of an image folder are: training or test parts, classes, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nc_tools._support.printable import printable
from nc_tools.data.class_folders import ClassFolder, Part, class_part, has_images
from nc_tools.data.folder_walk import SIDE_FOLDERS, contents
from nc_tools.data.short_list import short_list
from nc_tools.data.split_words import Role, split_role, split_role_and_rest


@dataclass(frozen=True)
class Layout:
    """The layout of an image folder.

    Attributes:
        train: The training images, or all images if ``test`` is None.
        test: The test images, or None if the folder has no split.
        sentences: What was decided, for people.
        choices: What was decided, for the fingerprint of the data.
    """

    train: Part
    test: Part | None
    sentences: tuple[str, ...] = ()
    choices: dict[str, str] = field(default_factory=dict)


def find_layout(root: Path, class_folder: ClassFolder | None = None) -> Layout:
    """Find the parts and the classes of an image folder from the names of its folders.

    The training images are in ``train`` and the test images in ``test``, or in ``val`` if there is no ``test``; other
    words and spellings of the three are known too. These folders may also lie inside each class folder, as in
    ``cat/train``. If there is only one of the three, its images are one set without a split; if there is none, all
    images are. If a folder holds nothing but one other folder, the search goes on in that one.

    Args:
        root: The image folder.
        class_folder: Which folders are the classes if the names leave it open; None raises an error then.

    Raises:
        ValueError: If folders cannot be classes, or it is not clear which are; the message says what to do.
    """
    base, sentences = _look_through(root, "")
    splits, flat = _split_folders(root, base)
    inside = contents(root / base)
    if inside.images:
        sentences.append(f"{len(inside.images)} images beside the class folders are left out")
    if "train" in splits and len(splits) > 1:
        test: Role = "test" if "test" in splits else "val"
        sentences.append(f"split: {splits['train']}/ is for training, {splits[test]}/ for testing")
        sentences += _unused(inside.folders, base, splits, test, flat)
        train, tested = (
            class_part(root, folder, class_folder, sentences) for folder in (splits["train"], splits[test])
        )
        return Layout(train, tested, tuple(sentences), {"split": f"{splits['train']}, {splits[test]}"})
    if len(splits) == 1:
        (only,) = splits.values()
        sentences += _unused(inside.folders, base, splits, next(iter(splits)), flat)
        return Layout(class_part(root, only, class_folder, sentences), None, tuple(sentences))
    if divided := _split_in_classes(root, base):
        return Layout(*divided, (*sentences, "split: by the folders inside each class"), {"split": "inside classes"})
    return Layout(class_part(root, base, class_folder, sentences), None, tuple(sentences))


def _look_through(root: Path, base: str) -> tuple[str, list[str]]:
    """Return the folder to read, and sentences about it: go down while a folder holds only one folder of folders."""
    sentences: list[str] = []
    while True:
        inside = contents(root / base)
        folders = [
            name for name in inside.folders if name.lower() not in SIDE_FOLDERS or has_images(root / base / name)
        ]
        if inside.images or len(folders) != 1 or not contents(root / base / folders[0]).folders:
            return base, sentences
        if split_role(folders[0]) is not None:
            return base, sentences  # the caller reads it as the only part of a split
        base = f"{base}/{folders[0]}".lstrip("/")
        sentences.append(f"the images are looked for in {printable(base)}/, the only folder there")


def _is_empty_side_folder(folder: Path) -> bool:
    return folder.name.lower() in SIDE_FOLDERS and not has_images(folder)


def _split_folders(root: Path, base: str) -> tuple[dict[Role, str], list[str]]:
    """Return the folders of a split that hold class folders, by role, and those that hold images without classes.

    Raises:
        ValueError: If two folders have the same role, the only part of a split lies beside other folders of images, or
            no part of a split holds class folders.
    """
    by_role: dict[Role, list[str]] = {}
    flat: list[str] = []
    others = []
    folders = contents(root / base).folders
    roles = _roles(folders)
    for name in folders:
        folder = f"{base}/{name}".lstrip("/")
        role = roles.get(name)
        if role is None:
            others += [name] if name.lower() not in SIDE_FOLDERS and has_images(root / folder) else []
            continue
        below, _ = _look_through(root, folder)
        if split_role_and_rest(name) and (nested := _same_role_inside(root, below, role)):
            below = nested
        if any(has_images(root / below / inner) for inner in contents(root / below).folders):
            by_role.setdefault(role, []).append(below)
        elif contents(root / below).images:
            flat.append(name)
    if len(by_role) == 1 and others:
        (only,) = next(iter(by_role.values()))
        raise ValueError(
            f"in {root / base}, {only}/ looks like one part of a split, but there are images in {short_list(others)} "
            f"beside it too: give the folder to use, as in imagefolder:{root / only}, or move the others away"
        )
    for role, names in by_role.items():
        if len(names) > 1:
            raise ValueError(
                f"{root} has two folders of {role} images, {' and '.join(names)}: rename or remove all but one"
            )
    if not by_role and len(flat) > 1 and not others:
        raise ValueError(
            f"the folders in {root / base} are the parts of a split, {short_list(flat)}, and none holds class folders: "
            f"give the labels as a table, table:FILE@{root}"
        )
    return {role: names[0] for role, names in by_role.items()}, flat


def _roles(folders: Sequence[str]) -> dict[str, Role]:
    """Return the role of each folder that is part of a split: ``Training``, or ``seg_train`` next to ``seg_test``."""
    roles = {name: role for name in folders if (role := split_role(name))}
    mixed = {name: both for name in folders if name not in roles and (both := split_role_and_rest(name))}
    for name, (role, rest) in mixed.items():
        if any(other_role != role and rest == other_rest for other_role, other_rest in mixed.values()):
            roles[name] = role
    return roles


def _same_role_inside(root: Path, folder: str, role: Role) -> str | None:
    """Return the folder of the same role in a folder that holds nothing else, as in ``seg_train/seg_train``."""
    inside = contents(root / folder).folders
    same = [name for name in inside if (both := split_role_and_rest(name)) and both[0] == role]
    return f"{folder}/{inside[0]}" if len(inside) == len(same) == 1 else None


def _unused(folders: Sequence[str], base: str, splits: dict[Role, str], test: Role, flat: Sequence[str]) -> list[str]:
    """Return a sentence about the folders beside the split that are not used; an empty list if there are none."""
    used = {splits[role].removeprefix(base).strip("/").split("/")[0] for role in ("train", test) if role in splits}
    rest = [f"{printable(name)}/" for name in folders if name not in used]
    texts = [f"not used: {short_list(rest)}"] if rest else []
    if any(role not in ("train", test) for role in splits):
        texts[-1] += " (a run draws its own hold-out from the training images)"
    if flat:
        texts[-1] += f"; {short_list(sorted(flat))} has no class folders"
    return texts


def _split_in_classes(root: Path, base: str) -> tuple[Part, Part] | None:
    """Return the two parts of a folder whose classes each hold the folders of a split, as in ``cat/train``."""
    classes = {name: contents(root / base / name) for name in contents(root / base).folders}
    roles = {name: {split_role(inner): inner for inner in inside.folders} for name, inside in classes.items()}
    if len(classes) < 2 or any(inside.images or not inside.folders for inside in classes.values()):
        return None
    if any(None in by_role or "train" not in by_role or len(by_role) < 2 for by_role in roles.values()):
        return None
    parts = []
    for wanted in (("train",), ("test", "val")):
        folders = {}
        for name, by_role in roles.items():
            role = next(role for role in wanted if role in by_role)
            folders[name] = (f"{base}/{name}/{by_role[role]}".lstrip("/"),)
        parts.append(Part(wanted[0], base, folders))
    return parts[0], parts[1]
