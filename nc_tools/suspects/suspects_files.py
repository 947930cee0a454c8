"""The files that ``nc-tools suspects`` writes: the ranked labels, the classes, and the transition matrix."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nc_tools._support.atomic_write import atomic_write
from nc_tools.suspects.find_suspects import FoundSuspects
from nc_tools.suspects.labeled_rows import LabeledSamples

SUSPECTS_FILE = "suspects.csv"
"""The most suspect labels, one in each row."""
_RANKS = ("loss", "distance", "rank_by_loss", "rank_by_distance")
_COLUMNS = ("rank", "index", "path", "given", "suggested", "check", *_RANKS)


def write_suspects_files(folder: Path, rows: LabeledSamples, ranking: FoundSuspects, most: int | None) -> list[Path]:
    """Write suspects.csv, classes.csv and transition.csv into a folder, and return their paths.

    Cells that a spreadsheet would read as a formula begin with an apostrophe.

    Args:
        folder: Created if it does not exist.
        rows: The samples.
        ranking: The ranking of their labels.
        most: Largest number of rows of suspects.csv; None for a row for each sample.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        SUSPECTS_FILE: _suspect_rows(rows, ranking, most),
        "classes.csv": _class_rows(rows, ranking),
        "transition.csv": _transition_rows(rows.classes, ranking.joint),
    }
    for name, lines in files.items():
        with atomic_write(folder / name) as part, part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([[_neutral(cell) for cell in line] for line in lines])
    return [folder / name for name in files]


def _neutral(cell: Any) -> Any:
    """Return a text cell with an apostrophe before it if a spreadsheet would compute it."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _suspect_rows(rows: LabeledSamples, ranking: FoundSuspects, most: int | None) -> Iterable[Sequence[Any]]:
    with_people = ranking.disagreement is not None and ranking.disagreement_rank is not None
    yield (*_COLUMNS, "disagreement", "rank_by_disagreement") if with_people else _COLUMNS
    suspects = ranking.suspects
    for rank, i in enumerate(ranking.order[:most].tolist(), start=1):
        cells: list[Any] = [rank, int(rows.index[i]), "" if rows.ids is None else rows.ids[i]]
        cells += [rows.classes[int(rows.labels[i])], rows.classes[int(suspects.suggested[i])]]
        cells += ["yes" if ranking.likely_wrong[i] else "no"]
        cells += [round(float(suspects.loss[i]), 4), round(float(suspects.distance[i]), 4)]
        cells += [int(suspects.loss_rank[i]), int(suspects.distance_rank[i])]
        if ranking.disagreement is not None and ranking.disagreement_rank is not None:
            cells += [round(float(ranking.disagreement[i]), 4), float(ranking.disagreement_rank[i])]
        yield cells


def _class_rows(rows: LabeledSamples, ranking: FoundSuspects) -> Iterable[Sequence[Any]]:
    yield "class", "samples", "estimated_wrong", "estimated_share_wrong", "most_often_truly"
    counts = rows.labels.bincount(minlength=len(rows.classes)).tolist()
    for k, name in enumerate(rows.classes):
        wrong = int(ranking.wrong_by_class[k])
        others = ranking.joint[:, k].clone()
        others[k] = 0
        truly = rows.classes[int(others.argmax())] if float(others.max()) > 0 else ""
        yield name, counts[k], wrong, f"{wrong / counts[k]:.4f}" if counts[k] else "", truly


def _transition_rows(classes: Sequence[str], joint: Tensor) -> Iterable[Sequence[Any]]:
    yield "true class", *classes
    for name, line in zip(classes, joint, strict=True):
        total = float(line.sum())
        yield name, *(f"{float(value) / total:.4f}" if total > 0 else "" for value in line)
