"""Coarse labels: train on groups of classes, and keep the fine classes for transfer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data.csv_files import read_columns
from nc_tools.data.image_set import Images, relabeled
from nc_tools.data.short_list import short_list

# The classes of each group, by the name of the grouping. Those of CIFAR-10 are usual for coarse-to-fine transfer.
GROUPINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "digits-parity": {"even": ("0", "2", "4", "6", "8"), "odd": ("1", "3", "5", "7", "9")},
    "cifar10-animals": {
        "vehicle": ("airplane", "automobile", "ship", "truck"),
        "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
    },
}


def check_grouping(text: str) -> None:
    """Check that a text names a built-in grouping of classes or a CSV file, before any data is read.

    Raises:
        ValueError: If it names neither; the message has the most similar name.

    Example:
        >>> check_grouping("digits-party")
        Traceback (most recent call last):
            ...
        ValueError: coarse must be a grouping (digits-parity, cifar10-animals) or a .csv file with the columns \
class,coarse, got 'digits-party'; did you mean 'digits-parity'?
    """
    if text in GROUPINGS or text.lower().endswith(".csv"):
        return
    raise ValueError(
        f"coarse must be a grouping ({', '.join(GROUPINGS)}) or a .csv file with the columns class,coarse, got "
        f"{text!r}; {did_you_mean(text, GROUPINGS)}"
    )


def read_grouping(text: str, classes: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Read a grouping of classes: the names of the groups, and the group of each class.

    Groups are numbered in the order of their first class.

    Args:
        text: The name of a grouping, or a CSV file in UTF-8 with the columns ``class`` and ``coarse``.
        classes: K names of the fine classes. Each must be in one group, and the grouping must name no other class.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a class is missing, unknown or in two groups, a column is missing, or there are fewer than two
            groups or as many as classes.

    Example:
        >>> read_grouping("digits-parity", "0123456789")
        (('even', 'odd'), (0, 1, 0, 1, 0, 1, 0, 1, 0, 1))
    """
    check_grouping(text)
    if text in GROUPINGS:
        pairs = [(name, group) for group, names in GROUPINGS[text].items() for name in names]
    else:
        pairs = _read_pairs(Path(text).expanduser())
    group_by_class: dict[str, str] = {}
    for name, group in pairs:
        if name not in classes:
            raise ValueError(f"the grouping {text} names a class {name!r}, which the data do not have; "
                             f"{did_you_mean(name, classes)}")  # fmt: skip
        if group_by_class.setdefault(name, group) != group:
            raise ValueError(
                f"the grouping {text} puts the class {name!r} into two groups, {group_by_class[name]!r} and {group!r}: "
                "list it in only one of them"
            )
    if missing := [name for name in classes if name not in group_by_class]:
        raise ValueError(
            f"the grouping {text} has no group for {short_list(missing)}: add a row for each of these classes"
        )
    groups = tuple(dict.fromkeys(group_by_class[name] for name in classes))
    if not 2 <= len(groups) < len(classes):
        raise ValueError(
            f"a grouping must have at least two groups and fewer groups than the {len(classes)} classes, got "
            f"{len(groups)} in {text}"
        )
    return groups, tuple(groups.index(group_by_class[name]) for name in classes)


def coarsened(images: Images, groups: tuple[str, ...], group_of: Sequence[int]) -> Images:
    """Return the same images with the groups of their classes as labels.

    Args:
        images: A set with K classes.
        groups: Names of the groups.
        group_of: K group numbers, one for each class.

    Example:
        >>> from nc_tools.data import ImageSet
        >>> pixels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
        >>> fine = ImageSet(pixels, torch.tensor([0, 1, 2]), ("cat", "dog", "car"), "three")
        >>> coarsened(fine, ("animal", "vehicle"), (0, 0, 1)).labels.tolist()
        [0, 0, 1]
    """
    return relabeled(images, torch.tensor(group_of)[images.labels], groups)


def _read_pairs(file: Path) -> list[tuple[str, str]]:
    pairs = []
    for line, (name, group) in read_columns(file, ("class", "coarse")):
        if not group.strip():
            raise ValueError(f"{file}, line {line}: the column coarse is empty for the class {name!r}: name its group")
        pairs.append((name.strip(), group.strip()))
    return pairs
