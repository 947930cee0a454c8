"""The training labels that ``nc-tools gain`` compares with the given ones, each as a table of decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from nc_tools.data import DataConfig
from nc_tools.data.corrections import read_corrections
from nc_tools.data.label_files import LabeledPaths
from nc_tools.data.sources import Sources
from nc_tools.experiment.on_features.feature_data import labeled_sources
from nc_tools.features import FeatureSet
from nc_tools.suspects.find_suspects import find_suspects
from nc_tools.suspects.gain_decisions import pruned, random_changes, random_checks, write_decisions


@dataclass(frozen=True)
class LabelArm:
    """Training labels to compare with the given ones.

    Attributes:
        file: The table of decisions that turns the given labels into these.
        words: What the decisions do, as text for the user.
    """

    file: Path
    words: str


def label_arms(features: Path, data: DataConfig, folder: Path, seed: int = 0) -> dict[str, LabelArm]:
    """Return the arms to compare with the given labels, by name, and write the tables of decisions that no person made.

    Args:
        features: The file of the feature sets.
        data: The data, with a person's corrections or without.
        folder: Folder of these tables.
        seed: Draws random samples.

    Raises:
        ValueError: If the samples have no ids, the corrections do not fit or change nothing, or there is no arm.
    """
    sources = labeled_sources(features, replace(data, corrections=None))
    train = cast(FeatureSet, sources.train)
    if train.paths is None:
        raise ValueError(
            f"decisions are about samples with ids, such as paths of images, which {data.source} lacks: give a folder "
            "of images, or save the embeddings with ids="
        )
    arms = _corrected_and_random(sources, data, folder, seed) if data.corrections is not None else {}
    ranking = find_suspects(train.take(torch.arange(len(train))), train.labels, train.num_classes)
    left_out = pruned(ranking, train.labels)
    if left_out.any():
        number = write_decisions(folder / "pruned.csv", train, train.labels, left_out)
        arms["pruned"] = LabelArm(folder / "pruned.csv", f"the {number:,} most suspect images left out")
    if not arms:
        raise ValueError(
            "there is nothing to compare, because no label is suspect and no corrections are given: add --corrections "
            "FILE, a file of your decisions about labels"
        )
    return arms


def _corrected_and_random(sources: Sources, data: DataConfig, folder: Path, seed: int) -> dict[str, LabelArm]:
    file, train = Path(str(data.corrections)).expanduser(), cast(FeatureSet, sources.train)
    images = LabeledPaths(sources.root or Path(), train.paths or (), (*(sources.test.paths or ()), *sources.skipped))
    corrections = read_corrections(file, images, train.classes, train.labels, skip_missing=data.skip_missing)
    if not bool(((corrections.labels != train.labels) | corrections.excluded).any()):
        raise ValueError(
            f"the decisions of {file} change no training label and leave no image out, so there is no gain to "
            "measure: give decisions with relabel or exclude"
        )
    person = LabelArm(file, corrections.sentences[0].partition(": ")[2])
    if train.clean_labels is None:
        labels, excluded = random_changes(train, corrections, seed)
        number = write_decisions(folder / "random_changes.csv", train, labels, excluded)
        words = f"the same changes of {number:,} random other images"
        return {"corrected": person, "random": LabelArm(folder / "random_changes.csv", words)}
    count = int(corrections.decided.sum())
    labels = random_checks(train, count, seed)
    number = write_decisions(folder / "random_checks.csv", train, labels, torch.zeros_like(corrections.excluded))
    words = f"{number:,} labels corrected where {count:,} random images are checked"
    return {"corrected": person, "random": LabelArm(folder / "random_checks.csv", words)}
