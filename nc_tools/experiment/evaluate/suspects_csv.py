"""suspects.csv: the training labels that are most likely wrong, for a person to check."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.printable import csv_row
from nc_tools.evaluation.evaluator import EvaluationSet
from nc_tools.metrics import Suspects

COLUMNS = ("rank", "index", "path", "given", "suggested", "loss", "distance", "rank_by_loss", "rank_by_distance")


def write_suspects(path: Path, suspects: Suspects, train: EvaluationSet, rows: int) -> None:
    """Write one row for each of the most suspect labels, the most suspect first.

    ``index`` is the sample's position in the whole training set, ``path`` its file where it has one; ``suggested`` is
    the class that the model predicts. Where true labels are known, they are a last column, ``clean``; the ranking does
    not use them.

    Args:
        path: The CSV file, written atomically.
        suspects: The ranking of the set's samples.
        train: The samples trained on.
        rows: Largest number of rows.
    """
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS if train.clean_labels is None else (*COLUMNS, "clean"))
        writer.writerows(map(csv_row, _rows(suspects, train, rows)))


def _rows(suspects: Suspects, train: EvaluationSet, rows: int) -> Iterator[list[Any]]:
    images, clean = train.images, train.clean_labels
    names, paths = images.classes, images.paths
    for rank, i in enumerate(suspects.order[:rows].tolist(), start=1):
        index = i if train.indices is None else int(train.indices[i])
        row: list[Any] = [rank, index, "" if paths is None else paths[index], names[int(images.labels[index])]]
        row += [names[int(suspects.suggested[i])], f"{float(suspects.loss[i]):.4f}"]
        row += [f"{float(suspects.distance[i]):.4f}", int(suspects.loss_rank[i]), int(suspects.distance_rank[i])]
        yield row if clean is None else [*row, names[int(clean[i])]]
