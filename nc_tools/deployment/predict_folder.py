"""Predict the classes of all images in a folder, and write them to a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.printable import csv_row
from nc_tools.data.decode import Chunk, Progress, decode_chunks
from nc_tools.data.folder_walk import FolderWalk
from nc_tools.deployment.predictor import Predictor


@dataclass
class FolderSummary:
    """Summary of the predictions for a folder.

    Attributes:
        images: Number of images that were read.
        by_class: How many images were assigned to each class, by its name.
        unusual: Number of images that are more unusual than 99 % of the run's test images; None if that is not known.
        surest: The largest probability that any image has for a class.
        unreadable: path -> why the file could not be read.
        notes: What was left out, as sentences.
    """

    images: int = 0
    by_class: dict[str, int] = field(default_factory=dict)
    unusual: int | None = None
    surest: float = 0.0
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def predict_folder(
    predictor: Predictor, folder: Path, out: Path, *, top: int = 3, progress: Progress | None = None
) -> FolderSummary:
    """Predict the classes of the images in a folder and its subfolders, and write a CSV file.

    The columns are ``path``, then ``class_1`` and ``probability_1`` to ``class_k`` and ``probability_k``, the most
    probable class first, then ``energy`` and ``unusual`` (see :class:`Predicted`), then ``error``, which says why a
    file could not be read. Rows are in the order of the paths. The file appears when it is complete.

    Args:
        predictor: The model.
        folder: Folder of images, or one image.
        out: The CSV file.
        top: k, the number of classes to list; K if it is larger.
        progress: Called as ``progress(done, total)``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image, or ``top`` is not positive.
    """
    if top < 1:
        raise ValueError(f"the number of classes to list must be at least 1, got {top}")
    root, paths, notes = _images(folder)
    top = min(top, len(predictor.classes))
    summary = FolderSummary(notes=notes, unusual=None if predictor.reference is None else 0)
    facts, reading = predictor.trained.facts, predictor.trained.config.data.interpolation
    with atomic_write(out) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        ranks = [f"{name}_{rank}" for rank in range(1, top + 1) for name in ("class", "probability")]
        writer.writerow(["path", *ranks, "energy", "unusual", "error"])
        for chunk in decode_chunks(root, paths, facts.image_size, facts.in_channels, progress, reading):
            for row in _rows(predictor, chunk, paths, top, summary):
                writer.writerow(csv_row(row))
    return summary


def _images(folder: Path) -> tuple[Path, list[str], list[str]]:
    if folder.is_file():
        return folder.parent, [folder.name], []
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: give a folder of images")
    walk = FolderWalk(folder)
    walk.claim("")
    paths = list(walk.images("", leave_out=()))
    if not paths:
        raise ValueError(f"{folder} holds no image file: give a folder of images, such as .jpg or .png files")
    return folder, paths, walk.sentences()


def _rows(
    predictor: Predictor, chunk: Chunk, paths: list[str], top: int, summary: FolderSummary
) -> Iterator[list[object]]:
    """Yield the rows of one chunk of images, and count them in the summary."""
    predictions = predictor(chunk.images)
    best = predictions.probabilities.topk(top, dim=1)
    for row in range(len(chunk.images)):
        path = paths[chunk.start + row]
        if path in chunk.unreadable:
            summary.unreadable[path] = chunk.unreadable[path]
            yield [path, *[""] * (2 * top + 2), chunk.unreadable[path]]
            continue
        names = [predictor.classes[label] for label in best.indices[row].tolist()]
        shares = [f"{value:.6f}" for value in best.values[row].tolist()]
        unusual = "" if predictions.unusual is None else f"{float(predictions.unusual[row]):.4f}"
        summary.images += 1
        summary.surest = max(summary.surest, float(best.values[row, 0]))
        summary.by_class[names[0]] = summary.by_class.get(names[0], 0) + 1
        if predictions.unusual is not None and summary.unusual is not None:
            summary.unusual += int(predictions.unusual[row] > 0.99)
        ranked = [cell for pair in zip(names, shares, strict=True) for cell in pair]
        yield [path, *ranked, f"{float(predictions.energy[row]):.6g}", unusual, ""]
