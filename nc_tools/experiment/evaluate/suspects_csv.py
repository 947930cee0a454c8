"""suspects.csv: the training labels that look most wrong, for a person to go through."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from nc_tools._support.atomic_write import atomic_write
from nc_tools.data.image_set import Images
from nc_tools.metrics import Suspects

COLUMNS = ("rank", "index", "path", "given", "suggested", "loss", "distance", "rank_by_loss", "rank_by_distance")


def write_suspects(
    path: Path, told: Suspects, images: Images, indices: Tensor, clean: Tensor | None, rows: int
) -> None:
    """Write one row a label, the most suspect first.

    ``index`` is the sample's place in the whole training set, ``path`` its file where it has one; ``suggested`` is what
    the model would call it. Where true labels are known a last column, ``clean``, has them; the ranking has not seen
    them.

    Args:
        path: The CSV file; written at once.
        told: The ranking of the samples at ``indices``.
        images: The whole training set.
        indices: (M,), int64.
        clean: True labels of the same samples (M,), or None.
        rows: How many labels to list at most.
    """
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS if clean is None else (*COLUMNS, "clean"))
        writer.writerows(_lines(told, images, indices, clean, rows))


def _lines(told: Suspects, images: Images, indices: Tensor, clean: Tensor | None, rows: int) -> Iterator[list[Any]]:
    names, paths = images.classes, images.paths
    for rank, i in enumerate(told.order[:rows].tolist(), start=1):
        index = int(indices[i])
        line: list[Any] = [rank, index, "" if paths is None else paths[index], names[int(images.labels[index])]]
        line += [names[int(told.suggested[i])], f"{float(told.loss[i]):.4f}", f"{float(told.distance[i]):.4f}"]
        line += [int(told.loss_rank[i]), int(told.distance_rank[i])]
        yield line if clean is None else [*line, names[int(clean[i])]]
