"""The test images that an arm misclassifies with most confidence, and how many seeds of other arms are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nc_tools.comparison.arm_models import Mistake
from nc_tools.comparison.class_accuracy import class_names
from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.image_predictions import Predictions
from nc_tools.comparison.pairing import first_draws
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.single_models import PredictionsByArm
from nc_tools.comparison.surest_mistakes import MOST_MISTAKES
from nc_tools.run_records.mistake_pictures import MistakePictures, read_mistake_pictures


def mistakes_by_arm(
    comparison: Comparison, predictions: PredictionsByArm, arms: Sequence[str]
) -> tuple[dict[str, tuple[Mistake, ...]], list[tuple[str, str]]]:
    """Return the surest mistakes of each of the given arms, over the first draw of every seed.

    Each run keeps pictures of its own surest mistakes, and the surest over all seeds are among these.

    Args:
        comparison: The comparison; its runs hold the pictures.
        predictions: arm -> seed -> predictions of the first draw.
        arms: Names of the arms.

    Returns:
        arm -> mistakes, the surest first, without the arms that have none; and (run, problem) for each file of pictures
        that cannot be read.
    """
    by_arm, problems = {}, []
    for arm in arms:
        of_arm = predictions.get(arm, {})
        runs = first_draws(comparison.cells.get(arm, {}))
        pictures = _Pictures(runs)
        others = {other: predictions[other] for other in arms if other != arm and other in predictions}
        by_arm[arm] = tuple(_mistake(comparison, of_arm, others, pictures, place) for place in surest_places(of_arm))
        problems += pictures.problems
    return {arm: mistakes for arm, mistakes in by_arm.items() if mistakes}, problems


@dataclass(frozen=True)
class Place:
    """A wrong prediction: its log odds, the seed of the model that makes it, and the image's index in the test set."""

    margin: float
    seed: int
    index: int


def surest_places(of_arm: Mapping[int, Predictions]) -> list[Place]:
    """Return the surest mistakes over several seeds, the surest first, at most `MOST_MISTAKES`; each image counts once.

    Runs with the same labels are taken to have the same test images.
    """
    places = [
        Place(margin, seed, index)
        for seed, run in of_arm.items()
        for index, margin in zip(run.mistakes.index.tolist(), run.mistakes.margin.tolist(), strict=True)
    ]
    best: dict[tuple[str, int], Place] = {}
    for place in sorted(places, key=lambda place: (-place.margin, place.seed, place.index)):
        best.setdefault((of_arm[place.seed].labels, place.index), place)
    return list(best.values())[:MOST_MISTAKES]


class _Pictures:
    """The pictures that the runs of an arm kept, each file read once and only if it is needed."""

    def __init__(self, runs: Mapping[int, ComparedRun]) -> None:
        self.runs = runs
        self.problems: list[tuple[str, str]] = []
        self._read: dict[int, MistakePictures | None] = {}

    def find(self, seed: int, index: int) -> tuple[str, NDArray[np.uint8] | None]:
        """Return the path of an image, "" if none is recorded, and its picture (C, H, W), None if the run kept none."""
        if seed not in self._read:
            self._read[seed] = self._open(self.runs[seed])
        kept = self._read[seed]
        places = [] if kept is None else np.flatnonzero(kept.index == index).tolist()
        if kept is None or not places:
            return "", None
        path = kept.paths[places[0]] if kept.paths else ""
        return path, None if kept.images is None else kept.images[places[0]]

    def _open(self, run: ComparedRun) -> MistakePictures | None:
        if run.predictions is None:
            return None
        try:
            return read_mistake_pictures(run.predictions.parent)
        except ValueError as error:
            self.problems.append((run.run_id or run.arm, str(error)))
            return None


def _mistake(
    comparison: Comparison,
    of_arm: Mapping[int, Predictions],
    others: Mapping[str, Mapping[int, Predictions]],
    pictures: _Pictures,
    place: Place,
) -> Mistake:
    run = of_arm[place.seed]
    path, picture = pictures.find(place.seed, place.index)
    names = class_names(comparison, run.num_classes)
    truth = int(run.truth[place.index])
    right, seeds = _right(of_arm, run.labels, place.index)
    return Mistake(
        name=path or f"test image {place.index}",
        true=names[truth] if 0 <= truth < len(names) else str(truth),
        predicted=names[int(run.guesses[place.index])],
        confidence=float(1.0 / (1.0 + np.exp(-place.margin))),
        seed=place.seed,
        wrong=seeds - right,
        seeds=seeds,
        others={arm: counted for arm, runs in others.items() if (counted := _right(runs, run.labels, place.index))[1]},
        picture=picture,
    )


def _right(runs: Mapping[int, Predictions], labels: str, index: int) -> tuple[int, int]:
    """Return how many seeds classify an image correctly, and how many were tested on it."""
    tested = [bool(run.correct[index]) for run in runs.values() if run.labels == labels]
    return sum(tested), len(tested)
