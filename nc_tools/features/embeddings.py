"""Embeddings as a data set: features that another program computed, from one file, checked before anything is trained.

In this way a comparison can use text, sound and tables, and images whose features exist already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nc_tools.data.group_split import split_by_group
from nc_tools.data.imbalance import class_counts, split_holdout
from nc_tools.data.listing import TEST_SHARE
from nc_tools.data.short_list import short_list
from nc_tools.features.embedding_columns import EmbeddingArrays, read_embedding_columns
from nc_tools.features.embedding_labels import indices_and_classes
from nc_tools.features.feature_set import FeatureSet

_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= {"val": "val", "valid": "val", "validation": "val", "ood_near": "ood_near", "ood_far": "ood_far"}


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The feature sets of an embedding file.

    Attributes:
        train: All training rows, before any subset or hold-out is drawn.
        test: The test rows.
        ood: Out-of-distribution rows, by "near" and "far", for detection scores; their labels are not used.
        notes: What was decided while reading, in sentences for the user, such as how the rows were split.
    """

    train: FeatureSet
    test: FeatureSet
    ood: dict[str, FeatureSet] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_embeddings(path: Path | str) -> Embeddings:
    """Read a data set of embeddings from one file.

    The file holds for N samples:

    - ``features`` (N, D), numbers;
    - ``labels`` (N,), whole numbers or texts;
    - optional: ``ids`` (N,), unique names of the samples;
    - optional: ``split`` (N,), each "train", "test", "val", "ood_near" or "ood_far";
    - optional: ``groups`` (N,), such as the patient; the samples of a group stay on one side of every split;
    - optional: ``classes``, the names of the classes 0 to K - 1.

    The formats are those of :func:`~nc_tools.features.embedding_columns.read_embedding_columns`.

    With "train" and "test", rows of "val" join the training rows, from which each seed draws its own hold-out. Without
    "test", the rows of "val" are the test set. Without a split, a fifth of each class is the test set, the same rows
    for every seed.

    Args:
        path: The file, ``.npz``, ``.safetensors`` or ``.parquet``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the contents are wrong, such as lengths that differ, values that are not finite, a label without
            a training row, or an id in two splits. The message says what to do.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "pets.npz"
        >>> np.savez(file, features=np.eye(4), labels=["cat", "dog", "cat", "dog"], split=["train"] * 2 + ["test"] * 2)
        >>> pets = read_embeddings(file)
        >>> pets.train.classes, pets.test.labels.tolist()
        (('cat', 'dog'), [0, 1])
    """
    path = Path(path)
    columns = read_embedding_columns(path)
    features = _checked_features(columns, path)
    rows = len(features)
    for name in ("labels", "ids", "split", "groups"):
        if name in columns and columns[name].shape != (rows,):
            raise ValueError(
                f"{path.name} must have one of {name} for each of its {rows} feature rows, got the shape "
                f"{columns[name].shape}: write the file again from arrays of the same samples"
            )
    ids = _ids(columns)
    split = _split_of(columns, path)
    scored = np.ones(rows, dtype=bool) if split is None else ~np.char.startswith(split, "ood")
    labels, classes = indices_and_classes(columns, scored, path)
    if len(classes) < 2:
        raise ValueError(f"{path.name} must have samples of at least 2 classes, got only {classes[0]!r}")
    groups = _groups(columns)
    train, test, notes = _parts(labels, split, groups, path)
    _check_leak("ids", ids, train, test, split, path)
    _check_leak("groups", None if groups is None else groups.tolist(), train, test, split, path)
    _check_classes(labels, classes, train, test, path)
    _check_apart(features, train, test, notes)

    def part(name: str, index: np.ndarray) -> FeatureSet:
        chosen = torch.from_numpy(index)
        own = tuple(ids[i] for i in index.tolist()) if ids is not None else None
        of_groups = None if groups is None else groups[chosen]
        return FeatureSet(features[chosen], labels[chosen], classes, name, paths=own, groups=of_groups)

    ood = {} if split is None else {name[4:]: np.flatnonzero(split == name) for name in ("ood_near", "ood_far")}
    return Embeddings(
        train=part(f"{path.stem}-train", train),
        test=part(f"{path.stem}-test", test),
        ood={name: part(f"{path.stem}-{name}", index) for name, index in ood.items() if len(index)},
        notes=tuple(notes),
    )


def _checked_features(columns: EmbeddingArrays, path: Path) -> Tensor:
    """Return the features, float16 or float32; refuse other shapes and values that are not finite."""
    values = columns["features"]
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise ValueError(
            f"features of {path.name} must be numbers of shape (N, D) with N and D at least 1, got {values.dtype} of "
            f"shape {values.shape}: save one row of numbers for each sample"
        )
    if values.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, and is refused below
            values = values.astype(np.float32)
    features = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    bad = (~torch.isfinite(features).all(1)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"features must be finite, but {len(bad)} of {len(features)} rows of {path.name} hold NaN or infinity, "
            f"first row {int(bad[0])}: remove these rows, or compute them again"
        )
    return features


def _ids(columns: EmbeddingArrays) -> list[str] | None:
    return [str(value) for value in columns["ids"].tolist()] if "ids" in columns else None


def _groups(columns: EmbeddingArrays) -> Tensor | None:
    """Return the number of each row's group, numbered from 0 in the order of their names."""
    if "groups" not in columns:
        return None
    _, numbers = np.unique(columns["groups"].astype(str), return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64))


def _split_of(columns: EmbeddingArrays, path: Path) -> np.ndarray | None:
    """Return the part of each row: "train", "test", "val", "ood_near" or "ood_far"."""
    if "split" not in columns:
        return None
    given = np.asarray([str(value).strip().lower() for value in columns["split"].tolist()])
    unknown = sorted({name for name in given.tolist() if name not in _SPLITS})
    if unknown:
        raise ValueError(
            f"split of {path.name} must be train, test, val, ood_near or ood_far, got {short_list(unknown)}: rename "
            f"these values"
        )
    return np.asarray([_SPLITS[name] for name in given.tolist()])


def _parts(
    labels: Tensor, split: np.ndarray | None, groups: Tensor | None, path: Path
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the indices of training rows and of test rows, and notes for the user on how they were chosen."""
    if split is None:
        generator = torch.Generator().manual_seed(0)
        if groups is None:
            train, test = split_holdout(labels, TEST_SHARE, generator)
        else:
            train, test = split_by_group(labels, groups, TEST_SHARE, generator)
        if not len(test):
            raise ValueError(
                f"{path.name} has no split, and no class has two rows of which one could be for testing: add rows"
            )
        note = f"{path.name} has no split: {TEST_SHARE:.0%} of each class is the test set, the same rows for every seed"
        return train.numpy(), test.numpy(), [note]
    names = {name: np.flatnonzero(split == name) for name in ("train", "test", "val")}
    if not len(names["train"]) or not (len(names["test"]) or len(names["val"])):
        raise ValueError(
            f"split of {path.name} must have train rows and test (or val) rows, got "
            f"{', '.join(f'{len(index)} {name}' for name, index in names.items())}: mark some rows as test, or leave "
            f"out split to have a fifth of each class drawn"
        )
    if not len(names["test"]):
        return names["train"], names["val"], ["split has no test rows: the val rows are the test set"]
    if not len(names["val"]):
        return names["train"], names["test"], []
    joined = np.sort(np.concatenate([names["train"], names["val"]]))
    note = f"the {len(names['val'])} val rows join the training rows, from which each seed draws its own hold-out"
    return joined, names["test"], [note]


def _check_leak(
    what: str, values: Sequence[Any] | None, train: np.ndarray, test: np.ndarray, split: np.ndarray | None, path: Path
) -> None:
    """Refuse an id or a group that is in the training and in the test rows."""
    if values is None:
        return
    trained = {values[i] for i in train.tolist()}
    both = [str(value) for value in sorted({values[i] for i in test.tolist()} & trained)]
    if both:
        advice = "remove them from one part" if split is not None else "give the column split, or keep one row of each"
        raise ValueError(
            f"{len(both)} {what} of {path.name} are in the training and in the test rows ({short_list(both)}), which "
            f"would flatter every result: {advice}"
        )


def _check_classes(labels: Tensor, classes: tuple[str, ...], train: np.ndarray, test: np.ndarray, path: Path) -> None:
    trained, tested = (class_counts(labels[torch.from_numpy(part)], len(classes)) for part in (train, test))
    unseen = [name for name, n, m in zip(classes, trained.tolist(), tested.tolist(), strict=True) if m and not n]
    if unseen:
        raise ValueError(
            f"every label needs a training row, but {path.name} has test rows of {short_list(unseen)} and no training "
            f"row of them: add some, or remove these test rows"
        )
    empty = [name for name, n in zip(classes, trained.tolist(), strict=True) if not n]
    if empty:
        raise ValueError(
            f"every class needs a training row, but {path.name} names {short_list(empty)} in classes and has no row of "
            f"them: remove these names, and number the other classes from 0"
        )


def _check_apart(features: Tensor, train: np.ndarray, test: np.ndarray, notes: list[str]) -> None:
    """Add a note if test rows have exactly the features of a training row: the same sample twice."""
    rows = features.numpy()
    trained = {rows[i].tobytes() for i in train.tolist()}
    same = sum(rows[i].tobytes() in trained for i in test.tolist())
    if same:
        notes.append(
            f"{same} of {len(test)} test rows have exactly the features of a training row: the same samples flatter "
            f"every result"
        )
