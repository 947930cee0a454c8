"""The command ``nc-tools suspects``: read features and labels, rank the labels, write the files, say what to check."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nc_tools._support.check_writable import check_writable
from nc_tools.experiment.on_features.data_settings import refuse_unused_settings
from nc_tools.experiment.on_features.feature_options import (
    SourceOptions,
    embedding_file,
    model_config,
    source_config,
)
from nc_tools.experiment.on_features.feature_sources import EMBEDDINGS
from nc_tools.suspects.find_suspects import FoundSuspects, find_suspects
from nc_tools.suspects.labeled_images import read_labeled_images
from nc_tools.suspects.labeled_rows import LabeledSamples, all_samples, read_labeled_rows
from nc_tools.suspects.review_page import ReviewPage, write_review
from nc_tools.suspects.suspects_files import SUSPECTS_FILE, write_suspects_files

REVIEW = "review.html"
"""The page on which a person decides about the suspects."""
_SHOWN_CLASSES, _LITTLE_AGREEMENT, _REVIEWED = 5, 0.4, 400


@dataclass(frozen=True, kw_only=True)
class SuspectsJob(SourceOptions):
    """The arguments of ``nc-tools suspects``; those of the features' source are in the base class.

    Attributes:
        labels: ``FILE:COLUMN[,COLUMN...]`` of a table with the labels to check, or None for those of the data.
        part: Which labels are ranked: those of the training samples, of the test samples, or of both together.
        folds: Number of folds.
        seed: Draws the folds.
        rows: Largest number of rows of suspects.csv; None for all samples.
        out: Folder of the files, or None for one below ``outputs/suspects``.
        images: Folder of the images that the ids name, for the review page. None for the folder of the data; for
            embeddings, None means that no page is written.
        review: Number of suspects on the review page; None for 400.
    """

    labels: str | None = None
    part: Literal["train", "test", "all"] = "train"
    folds: int = 5
    seed: int = 0
    rows: int | None = None
    out: Path | None = None
    images: Path | None = None
    review: int | None = None


def run_suspects(job: SuspectsJob, tell: Callable[[str], None]) -> FoundSuspects:
    """Rank the labels of a data set, write suspects.csv, classes.csv and transition.csv, and tell what was ranked.

    If there are images, it writes review.html too.

    Args:
        job: The arguments.
        tell: Called with each line of text.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is damaged or an argument does not fit it.
    """
    if job.rows is not None and job.rows < 1:
        raise ValueError(f"--rows is a number of rows and must be at least 1, got {job.rows}")
    if job.review is not None and job.review < 1:
        raise ValueError(f"--review is a number of labels and must be at least 1, got {job.review}")
    if not 0 <= job.seed < 2**63:
        raise ValueError(f"--seed must be a number from 0 to 2^63 - 1, got {job.seed}")
    start = time.perf_counter()
    file = embedding_file(job)
    folder = job.out or Path("outputs") / "suspects" / (file or Path(job.data)).stem.rpartition(":")[2]
    if file is not None:
        _check_embeddings_only(job, file)
        parts, images = read_labeled_rows(file, job.labels), job.images
    else:
        parts, root = read_labeled_images(job, job.labels, folder)
        images = job.images or root
    if job.review is not None and images is None:
        raise ValueError(
            "--review is a number of labels on a page with their images, of which there are no files here: give the "
            "folder that the ids are relative to with --images, or leave --review out"
        )
    rows, training = _chosen(job, parts)
    check_writable(folder)
    ranking = find_suspects(
        rows.features,
        rows.labels,
        len(rows.classes),
        annotations=rows.annotations,
        training=training,
        folds=job.folds,
        seed=job.seed,
    )
    files = write_suspects_files(folder, rows, ranking, job.rows)
    if images is not None:
        shown = write_review(folder / REVIEW, rows, ranking, ReviewPage(images, job.review or _REVIEWED, seed=job.seed))
        files.append(folder / REVIEW)
    _tell(rows, ranking, tell)
    tell(f"{time.perf_counter() - start:.1f} s; wrote {', '.join(str(file) for file in files)}")
    tell(f"Look at the rows of {SUSPECTS_FILE} with check = yes first, from the top: stop where most labels are right.")
    if images is not None:
        tell(f"Open {REVIEW} in a browser to decide about {shown} of them with the keyboard, and save decisions.csv.")
    return ranking


def _check_embeddings_only(job: SuspectsJob, file: Path) -> None:
    """Refuse the arguments that would change nothing where the features come from a file.

    Raises:
        ValueError: If there is one; the message names it.
    """
    model_config(job)
    refuse_unused_settings(source_config(replace(job, data=f"{EMBEDDINGS}{file}")), embeddings=True)
    if job.device not in ("auto", "cpu"):
        raise ValueError(
            f"--device is where a network computes features, and embeddings have theirs, got {job.device}: leave it out"
        )


def _chosen(
    job: SuspectsJob, parts: Mapping[str, LabeledSamples]
) -> tuple[LabeledSamples, tuple[Tensor, Tensor] | None]:
    """Return the samples whose labels are ranked, and features and labels of a training set if they are test samples.

    Raises:
        ValueError: If there are no such samples.
    """
    if job.part == "all":
        return all_samples(parts), None
    if job.part not in parts:
        raise ValueError(
            f"{Path(job.data).name} has no {job.part} rows: give the file a split with rows of both kinds, or use "
            f"--part {'train' if job.part == 'test' else 'test'}"
        )
    if "train" not in parts:
        raise ValueError(f"{Path(job.data).name} has test rows only, but the model needs training rows: add some")
    train = parts["train"]
    return parts[job.part], None if job.part == "train" else (train.features, train.labels)


def _tell(rows: LabeledSamples, ranking: FoundSuspects, tell: Callable[[str], None]) -> None:
    count, wrong = len(rows.labels), int(ranking.wrong_by_class.sum())
    tell(f"{count:,} labels of {len(rows.classes)} classes; about {wrong:,} ({wrong / count:.1%}) may be wrong.")
    counts = rows.labels.bincount(minlength=len(rows.classes))
    largest = int(counts.max()) / count  # the agreement of always predicting the largest class
    if ranking.agreement <= max(_LITTLE_AGREEMENT, largest):
        tell(
            f"Caution: a linear model of these features predicts only {ranking.agreement:.0%} of the given labels (the "
            f"largest class has {largest:.0%}), and the number above counts its errors as wrong labels. The order is "
            "still of use. Take features of a better network, or more samples of each class."
        )
    worst = (ranking.wrong_by_class / counts.clamp(min=1)).argsort(descending=True, stable=True)[:_SHOWN_CLASSES]
    listed = [
        f"{rows.classes[k]} {int(ranking.wrong_by_class[k])} of {int(counts[k])}"
        for k in worst.tolist()
        if ranking.wrong_by_class[k] > 0
    ]
    if listed:
        tell(f"Classes with the largest shares: {', '.join(listed)}.")
    if rows.annotators:
        tell(f"Disagreement with {', '.join(rows.annotators)} counts as a third rank.")
    alone = int(ranking.alone.sum())
    if alone:
        tell(f"Labels that are alone in their class: {alone}. Nothing is known about them, and they are listed last.")
    empty = [rows.classes[k] for k in torch.nonzero(counts == 0).flatten().tolist()]
    if empty:
        tell(f"{len(empty)} classes have no sample here, such as {empty[0]}.")
