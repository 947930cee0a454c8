"""The rows of an embedding file whose labels are checked: features, given labels, ids and other annotators' labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nc_tools.data.label_column import LabelError, labels_of
from nc_tools.data.label_files import LabeledPaths, place, read_labels, rows_of_images
from nc_tools.data.table_rows import read_table
from nc_tools.features.embedding_columns import read_embedding_columns
from nc_tools.features.embedding_labels import indices_and_classes

_PARTS = {"train": "train", "training": "train", "val": "train", "valid": "train", "validation": "train"}
_PARTS |= {"test": "test", "testing": "test"}


@dataclass(frozen=True, eq=False)
class LabeledSamples:
    """Samples with features and labels.

    Attributes:
        features: (N, D).
        labels: The given labels (N,), int64.
        classes: K names.
        index: Position of each sample in the file (N,).
        ids: Id of each sample, such as the path of its image; None if the file has none.
        annotations: Labels of A other annotators (N, A), -1 where an annotator gave none; None without annotators.
        annotators: Names of these annotators.
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    index: Tensor
    ids: tuple[str, ...] | None = None
    annotations: Tensor | None = None
    annotators: tuple[str, ...] = ()

    def take(self, rows: Tensor) -> LabeledSamples:
        """Return the samples at ``rows`` (M,)."""
        return LabeledSamples(
            self.features[rows],
            self.labels[rows],
            self.classes,
            self.index[rows],
            None if self.ids is None else tuple(self.ids[i] for i in rows.tolist()),
            None if self.annotations is None else self.annotations[rows],
            self.annotators,
        )


def read_labeled_rows(path: Path, labels: str | None = None) -> dict[str, LabeledSamples]:
    """Read the training rows and, where the file has a split, the test rows of an embedding file.

    The file is that of :func:`~nc_tools.features.read_embeddings`. Rows of "val" are training rows; rows of other
    splits are left out; without a split all rows are training rows.

    Args:
        path: The file, ``.npz``, ``.safetensors`` or ``.parquet``.
        labels: ``FILE:COLUMN`` or ``FILE:COLUMN,COLUMN,...`` of a CSV with a ``path`` column that holds the ids. The
            first column takes the place of the file's own labels. The others hold the labels of further annotators, and
            their cells may be empty. If the CSV names only training or only test rows, the other rows keep their
            labels.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is damaged, or something in it does not fit.
    """
    columns = read_embedding_columns(path)
    features = _features(columns["features"], path)
    part_of = _parts(columns, len(features), path)
    used = part_of != ""
    for name in ("labels", "ids"):
        if name in columns and columns[name].shape != (len(features),):
            raise ValueError(
                f"{path.name} must have one of {name} for each of its {len(features)} feature rows, got the shape "
                f"{columns[name].shape}: write the file again from arrays of the same samples"
            )
    own, classes = indices_and_classes(columns, used, path)
    ids = tuple(str(name) for name in columns["ids"].tolist()) if "ids" in columns else None
    everything = LabeledSamples(features, own, classes, torch.arange(len(features)), ids)
    parts = {
        name: everything.take(torch.from_numpy(np.flatnonzero(part_of == name)))
        for name in ("train", "test")
        if (part_of == name).any()
    }
    if labels is None:
        return parts
    _require_ids(ids, path)
    return with_labels_of(parts, labels, path.parent)


def with_labels_of(parts: Mapping[str, LabeledSamples], labels: str, root: Path) -> dict[str, LabeledSamples]:
    """Return training and test samples with the labels of a table; a part that the table does not name keeps its own.

    Args:
        parts: Samples with ids, by "train" and "test".
        labels: ``FILE:COLUMN`` or ``FILE:COLUMN,COLUMN,...``, see :func:`read_labeled_rows`.
        root: The folder that ids are relative to.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it does not fit.
    """
    file, _ = _file_and_columns(labels)
    result = {}
    for name, part in parts.items():
        own = part.ids or ()
        others = tuple(i for other, samples in parts.items() if other != name for i in samples.ids or ())
        images = read_table(file, (*own, *others), root).match.images
        named = any(image is not None and image < len(own) for image in images)
        result[name] = _relabeled(part, labels, others, root) if named or len(parts) == 1 else part
    return result


def all_samples(parts: Mapping[str, LabeledSamples]) -> LabeledSamples:
    """Return the samples of all parts as one; labels of other annotators are kept if every part has them."""
    first, *rest = parts.values()
    if not rest:
        return first
    every = [first, *rest]
    ids = [part.ids for part in every]
    annotations = [part.annotations for part in every]
    people = {part.annotators for part in every}
    return LabeledSamples(
        torch.cat([part.features for part in every]),
        torch.cat([part.labels for part in every]),
        first.classes,
        torch.cat([part.index for part in every]),
        None if None in ids else tuple(name for names in ids for name in names or ()),
        torch.cat([a for a in annotations if a is not None]) if len(people) == 1 and first.annotators else None,
        first.annotators if len(people) == 1 else (),
    )


def _features(values: np.ndarray, path: Path) -> Tensor:
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise ValueError(
            f"features of {path.name} must be numbers of shape (N, D) with N and D at least 1, got {values.dtype} of "
            f"shape {values.shape}: save one row of numbers for each sample"
        )
    features = torch.from_numpy(np.require(values, np.float32, requirements=["C", "W"]))
    bad = (~torch.isfinite(features).all(1)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"features must be finite, but {len(bad)} of {len(features)} rows of {path.name} hold NaN or infinity, "
            f"first row {int(bad[0])}: remove these rows, or compute them again"
        )
    return features


def _parts(columns: dict[str, np.ndarray], rows: int, path: Path) -> np.ndarray:
    """Return "train", "test" or "" for each row."""
    if "split" not in columns:
        return np.full(rows, "train")
    if columns["split"].shape != (rows,):
        raise ValueError(
            f"{path.name} must have one split for each of its {rows} feature rows, got the shape "
            f"{columns['split'].shape}: write the file again from arrays of the same samples"
        )
    return np.asarray([_PARTS.get(str(name).strip().lower(), "") for name in columns["split"].tolist()])


def _require_ids(ids: tuple[str, ...] | None, path: Path) -> None:
    if ids is None:
        raise ValueError(
            f"labels of another file are matched by id, but {path.name} has no ids: save it with ids=, one for each "
            "row, equal to the path column of the label file"
        )
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"ids of {path.name} must be unique, but {twice!r} is there more than once: remove one row")


def _relabeled(part: LabeledSamples, labels: str, others: tuple[str, ...], root: Path) -> LabeledSamples:
    file, names = _file_and_columns(labels)
    samples = LabeledPaths(root, part.ids or (), others)
    given = read_labels(file, names[0], samples, part.classes).labels
    people = [_annotator(file, name, samples, part.classes) for name in names[1:]]
    return LabeledSamples(
        part.features,
        given,
        part.classes,
        part.index,
        part.ids,
        torch.stack(people, dim=1) if people else None,
        tuple(names[1:]),
    )


def _file_and_columns(text: str) -> tuple[Path, list[str]]:
    file, colon, names = text.rpartition(":")
    columns = [name.strip() for name in names.split(",")]
    if not colon or not file or not all(columns):
        raise ValueError(f"--labels must be FILE:COLUMN or FILE:COLUMN,COLUMN, got {text!r}")
    if len(set(columns)) < len(columns):
        raise ValueError(f"--labels must name each column once, got {names!r}")
    return Path(file), columns


def _annotator(file: Path, column: str, samples: LabeledPaths, classes: tuple[str, ...]) -> Tensor:
    """Return the labels of one annotator (N,), -1 where the cell is empty."""
    table = read_table(file, (*samples.paths, *samples.others), samples.root)
    cells = table.cells(table.position(column))
    rows = [row for row in rows_of_images(table, samples, skip_missing=False) if cells[row]]
    given = torch.full((len(samples.paths),), -1, dtype=torch.int64)
    if not rows:
        return given
    try:
        values, _ = labels_of([cells[row] for row in rows], classes)
    except LabelError as error:
        where = str(file) if error.row is None else place(table, rows[error.row])
        raise ValueError(f"{where}: column {column!r}: {error}") from None
    given[torch.tensor([table.match.images[row] for row in rows])] = values
    return given
