"""Coarse labels: classes gathered into groups to train on, while the fine ones are kept for transfer."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path

import torch

from nc_tools.data.csv_text import open_csv
from nc_tools.data.image_set import Images, relabeled

# Groupings by name: group to its classes. CIFAR-10's two superclasses are the usual ones of coarse-to-fine transfer.
GROUPINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "digits-parity": {"even": ("0", "2", "4", "6", "8"), "odd": ("1", "3", "5", "7", "9")},
    "cifar10-animals": {
        "vehicle": ("airplane", "automobile", "ship", "truck"),
        "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
    },
}


def check_grouping(text: str) -> None:
    """Refuse what is neither the name of a grouping nor a CSV file, before any data is read.

    Raises:
        ValueError: Offering the nearest name.

    Example:
        >>> check_grouping("digits-party")
        Traceback (most recent call last):
            ...
        ValueError: coarse must be a grouping (digits-parity, cifar10-animals) or a .csv file with the columns \
class,coarse, got 'digits-party'; did you mean 'digits-parity'?
    """
    if text in GROUPINGS or text.lower().endswith(".csv"):
        return
    near = difflib.get_close_matches(text, GROUPINGS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"coarse must be a grouping ({', '.join(GROUPINGS)}) or a .csv file with the columns class,coarse, got "
        f"{text!r}{hint}"
    )


def read_grouping(text: str, classes: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names of the groups, and the group of each class.

    Groups are numbered in the order in which their first class comes.

    Args:
        text: The name of a grouping, or a CSV file in UTF-8 with the columns ``class`` and ``coarse``.
        classes: K names of the fine classes; each must be in one group, and the grouping must name no other.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a class is missing, unknown or in two groups, a column is missing, or the groups are fewer than
            two or as many as the classes.

    Example:
        >>> read_grouping("digits-parity", "0123456789")
        (('even', 'odd'), (0, 1, 0, 1, 0, 1, 0, 1, 0, 1))
    """
    check_grouping(text)
    if text in GROUPINGS:
        pairs = [(name, group) for group, names in GROUPINGS[text].items() for name in names]
    else:
        pairs = _read_csv(Path(text).expanduser())
    of_class: dict[str, str] = {}
    for name, group in pairs:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the classes are {_some(classes)}"
            raise ValueError(f"the grouping {text} speaks of a class {name!r}, which these images do not have: {hint}")
        if of_class.setdefault(name, group) != group:
            raise ValueError(f"every class belongs to one group, and {text} puts {name!r} into two")
    if missing := [name for name in classes if name not in of_class]:
        raise ValueError(f"every class needs a group, and {text} has none for {_some(missing)}: add rows")
    groups = tuple(dict.fromkeys(of_class[name] for name in classes))
    if not 2 <= len(groups) < len(classes):
        raise ValueError(
            f"a grouping needs at least two groups, and fewer than the {len(classes)} classes, got {len(groups)} in "
            f"{text}: gather some classes and keep others apart"
        )
    return groups, tuple(groups.index(of_class[name]) for name in classes)


def coarsened(images: Images, groups: tuple[str, ...], group_of: Sequence[int]) -> Images:
    """Return the same images, labeled by the groups of their classes.

    Example:
        >>> from nc_tools.data import ImageSet
        >>> pixels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
        >>> fine = ImageSet(pixels, torch.tensor([0, 1, 2]), ("cat", "dog", "car"), "three")
        >>> coarsened(fine, ("animal", "vehicle"), (0, 0, 1)).labels.tolist()
        [0, 0, 1]
    """
    return relabeled(images, torch.tensor(group_of)[images.labels], groups)


def _read_csv(file: Path) -> list[tuple[str, str]]:
    if not file.is_file():
        raise FileNotFoundError(f"the CSV with coarse classes must exist, and {file} does not: check the path")
    with open_csv(file) as handle:
        reader = csv.DictReader(handle)
        columns = list(reader.fieldnames or [])
        for name in ("class", "coarse"):
            if name not in columns:
                raise ValueError(
                    f"{file} must have the columns class and coarse, and {name!r} is missing: it has "
                    f"{', '.join(columns) or 'no header'}"
                )
        rows = [((row["class"] or "").strip(), (row["coarse"] or "").strip()) for row in reader]
    if any(not group for _, group in rows):
        raise ValueError(f"every row of {file} must name a coarse class, and one is empty")
    return rows


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
