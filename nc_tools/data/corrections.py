"""Decisions of a person about given labels: keep them, replace them, or leave the image out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.data.label_column import LabelError, labels_of
from nc_tools.data.label_files import LabeledPaths, place, rows_of_images
from nc_tools.data.short_list import quoted
from nc_tools.data.table import Table
from nc_tools.data.table_rows import read_table

_DECISIONS = {
    **dict.fromkeys(("keep", "ok", "right", "correct"), "keep"),
    **dict.fromkeys(("relabel", "take", "change", "replace"), "relabel"),
    **dict.fromkeys(("exclude", "drop", "remove", "no class"), "exclude"),
}
_LABEL_COLUMNS = ("label", "corrected", "new_label")


@dataclass(frozen=True)
class Corrections:
    """Corrected labels.

    Attributes:
        labels: (N,) int64, the given labels with the corrections.
        excluded: (N,) bool, the images that are left out.
        decided: (N,) bool, the images that a row decides about.
        sentences: What was decided, for people.
    """

    labels: Tensor
    excluded: Tensor
    decided: Tensor
    sentences: tuple[str, ...]


def read_corrections(
    file: Path, images: LabeledPaths, classes: Sequence[str], given: Tensor, *, skip_missing: bool = False
) -> Corrections:
    """Read a table of decisions; images without a row keep their label.

    Columns: one that names the image, found by its values; ``decision`` with keep, relabel or exclude; ``label`` with
    the new label. Without ``decision`` every row with a label is a relabel. In a column ``given``, if there is one,
    each class name must be the label that the data have, because a decision is about that label.

    Args:
        file: The table.
        images: The training images, and others that rows may name. Rows about test images are not applied, because all
            arms of a comparison must be tested on the same labels.
        classes: K names.
        given: (N,) the labels to correct, int64.
        skip_missing: Ignore rows that name no image, instead of stopping.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a decision or label is unknown, two rows decide differently about an image, a row is about
            another given label, or no image of a class is left.
    """
    table = read_table(file, (*images.paths, *images.others), images.root)
    rows = rows_of_images(table, images, skip_missing=skip_missing)
    decisions = _decisions(table, rows)
    where = [row for row in rows if decisions[row] == "relabel"]
    texts = {row: _new_label(table, row) for row in where}
    new = dict(zip(where, _labels(table, where, texts, classes), strict=True))
    labels, excluded = given.clone(), torch.zeros(len(given), dtype=torch.bool)
    decided: dict[int, tuple[int, int]] = {}
    _check_given(table, rows, classes, given)
    for row in rows:
        image = table.match.images[row]
        if image is None or not decisions[row]:
            continue
        outcome = {"keep": int(given[image]), "exclude": -1}.get(decisions[row], new.get(row, -1))
        if image in decided and decided[image][0] != outcome:
            raise ValueError(
                f"{place(table, row)}: the decision about {images.paths[image]} contradicts line "
                f"{table.lines[decided[image][1]]}: keep only one of these lines"
            )
        decided[image] = (outcome, row)
        labels[image], excluded[image] = (given[image] if outcome < 0 else outcome), outcome < 0
    _check_classes(file, classes, labels, excluded)
    changed = int(((labels != given) & ~excluded).sum())
    kept = len(decided) - changed - int(excluded.sum())
    others = sum(i is not None and i >= len(images.paths) for i in table.match.images)
    undecided = sum(not decisions[row] for row in rows)
    sentences = [
        f"corrections of {file.name}: {changed:,} training labels changed, {int(excluded.sum()):,} images left out, "
        f"{kept:,} labels confirmed"
    ]
    sentences += [f"{undecided:,} of its rows decide nothing"] if undecided else []
    sentences += [f"{others:,} of its rows are about test images and are not applied"] if others else []
    about = torch.zeros(len(given), dtype=torch.bool)
    about[list(decided)] = True
    return Corrections(labels, excluded, about, tuple(sentences))


def _decisions(table: Table, rows: Sequence[int]) -> dict[int, str]:
    """Return the decision of each row: keep, relabel, exclude, or "" for none."""
    names = [name.lower() for name in table.columns]
    if "decision" not in names:
        return {row: "relabel" if _new_label(table, row) else "" for row in rows}
    cells = table.cells(names.index("decision"))
    decisions = {}
    for row in rows:
        text = cells[row].lower()
        if text and text not in _DECISIONS:
            raise ValueError(
                f"{place(table, row)}: the decision must be keep, relabel or exclude, got {quoted(cells[row])}"
            )
        decisions[row] = _DECISIONS.get(text, "")
    return decisions


def _new_label(table: Table, row: int) -> str:
    """Return the new label of a row."""
    names = [name.lower() for name in table.columns]
    columns = [names.index(name) for name in _LABEL_COLUMNS if name in names]
    if not columns:
        rest = [j for j, name in enumerate(names) if j != table.path_column and name not in ("given", "decision")]
        if len(rest) != 1:
            raise ValueError(
                f"{table.file} must have a column 'label' with the new labels: rename the one that has them"
            )
        columns = rest
    return table.rows[row][columns[0]]


def _labels(table: Table, rows: Sequence[int], texts: dict[int, str], classes: Sequence[str]) -> list[int]:
    if empty := [row for row in rows if not texts[row]]:
        raise ValueError(f"{place(table, empty[0])}: relabel needs a new label in the column 'label': fill it")
    if not rows:
        return []
    try:
        labels, _ = labels_of([texts[row] for row in rows], classes)
    except LabelError as error:
        where = f"{table.file}, column of new labels" if error.row is None else place(table, rows[error.row])
        raise ValueError(f"{where}: {error}") from None
    return labels.tolist()


def _check_given(table: Table, rows: Sequence[int], classes: Sequence[str], given: Tensor) -> None:
    """Check that the decisions are about the labels that the data have."""
    names = [name.lower() for name in table.columns]
    if "given" not in names:
        return
    cells = table.cells(names.index("given"))
    filled = [row for row in rows if cells[row]]
    if not filled:
        return
    try:
        reviewed, _ = labels_of([cells[row] for row in filled], classes)
    except LabelError as error:
        where = f"{table.file}, column 'given'" if error.row is None else place(table, filled[error.row])
        raise ValueError(f"{where}: the label that was reviewed: {error}") from None
    pairs = zip(filled, reviewed.tolist(), strict=True)
    other = [row for row, label in pairs if label != int(given[table.match.images[row] or 0])]
    if other:
        image = table.match.images[other[0]] or 0
        raise ValueError(
            f"{place(table, other[0])}: the decision is about the label {quoted(cells[other[0]])}, but the data give "
            f"{classes[int(given[image])]!r} ({len(other):,} such rows): use the labels that were reviewed"
        )


def _check_classes(file: Path, classes: Sequence[str], labels: Tensor, excluded: Tensor) -> None:
    counts = torch.bincount(labels[~excluded], minlength=len(classes)).tolist()
    if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise ValueError(f"after the corrections of {file} no training image of {empty[0]} is left: keep at least one")
