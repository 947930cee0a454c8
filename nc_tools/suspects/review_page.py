"""review.html: a page on which a person decides about suspect labels with the keyboard, one image after another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nc_tools._support.atomic_write import atomic_write
from nc_tools.decoding.image_file import UnreadableImageError, decode_file
from nc_tools.plots.html_page import render_page
from nc_tools.plots.picture_url import picture_url
from nc_tools.suspects.find_suspects import FoundSuspects
from nc_tools.suspects.labeled_rows import LabeledSamples
from nc_tools.suspects.out_of_fold import standardized

_SIDE = 64
_NEIGHBORS = 3


@dataclass(frozen=True)
class ReviewPage:
    """What a review page shows.

    Attributes:
        images: Folder that the ids are relative to.
        most: Number of suspects.
        random_share: Number of randomly drawn other samples, as a share of the suspects. The page does not mark them,
            and they show how many labels are wrong among the samples that are not suspects.
        seed: Draws these samples and the order of the page.
    """

    images: Path
    most: int = 400
    random_share: float = 0.1
    seed: int = 0


def write_review(path: Path, rows: LabeledSamples, ranking: FoundSuspects, page: ReviewPage) -> int:
    """Write a page that needs no other file and no network, and return the number of samples on it.

    Each sample is shown as a small picture, with the three nearest samples of its given and of its suggested class that
    are not suspects. Decisions stay in the browser and are saved as decisions.csv (path, given, decision, label), which
    ``--corrections`` reads.

    Raises:
        ValueError: If the samples have no ids, or an image is missing or cannot be read.
    """
    if rows.ids is None:
        raise ValueError(
            "a review page needs images, which are found by id, but the file has no ids: save it with ids=, one path "
            "for each row"
        )
    chosen = _chosen(ranking, page)
    inputs = standardized(rows.features)
    near = {int(i): _near_samples(inputs, rows.labels, ranking, int(i)) for i in chosen}
    shown = {*near, *(j for both in near.values() for part in both for j in part)}
    pictures = {i: _picture(page.images, rows.ids[i]) for i in sorted(shown)}
    likely = set(ranking.order[: page.most].tolist())
    samples = [
        {
            "path": rows.ids[i],
            "given": int(rows.labels[i]),
            "suggested": int(ranking.suspects.suggested[i]),
            "suspect": i in likely,
            "picture": i,
            "near_given": near[i][0],
            "near_suggested": near[i][1],
        }
        for i in map(int, chosen)
    ]
    data: dict[str, Any] = {"classes": rows.classes, "samples": samples, "pictures": pictures}
    name = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
    text = render_page("nc_tools.suspects", "review.html.j2", {"data": {**data, "name": name}})
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return len(samples)


def _chosen(ranking: FoundSuspects, page: ReviewPage) -> Tensor:
    """Return the most suspect samples and some random others, in random order."""
    generator = torch.Generator().manual_seed(page.seed)
    suspects, others = ranking.order[: page.most], ranking.order[page.most :]
    drawn = others[torch.randperm(len(others), generator=generator)[: round(page.random_share * len(suspects))]]
    together = torch.cat([suspects, drawn])
    return together[torch.randperm(len(together), generator=generator)]


def _near_samples(inputs: Tensor, labels: Tensor, ranking: FoundSuspects, index: int) -> tuple[list[int], list[int]]:
    """Return the nearest samples with the given and with the suggested label that are not suspect themselves."""
    both = []
    for label in (int(labels[index]), int(ranking.suspects.suggested[index])):
        candidates = ((labels == label) & ~ranking.likely_wrong).nonzero().flatten()
        candidates = candidates[candidates != index]
        distances = torch.linalg.vector_norm(inputs[candidates] - inputs[index], dim=1)
        both.append(candidates[distances.argsort()[:_NEIGHBORS]].tolist())
    return both[0], both[1]


def _picture(folder: Path, name: str) -> str:
    """Return a small JPEG as a data URL."""
    if not (folder / name).is_file():
        raise ValueError(
            f"there is no image {name!r} in {folder}: give the folder that the ids are relative to with --images"
        )
    try:
        pixels = decode_file(folder / name, _SIDE, 3).pixels
    except UnreadableImageError as error:
        raise ValueError(f"an image of the review page cannot be read: {error}") from None
    return picture_url(pixels)
