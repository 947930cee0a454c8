"""Decisions about training labels that ``nc-tools gain`` compares with a person's: random ones, and pruning."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.atomic_write import atomic_write
from nc_tools.data.corrections import Corrections
from nc_tools.features import FeatureSet
from nc_tools.suspects.find_suspects import FoundSuspects

_KEPT = 2


def write_decisions(file: Path, samples: FeatureSet, labels: Tensor, excluded: Tensor) -> int:
    """Write a table of decisions that ``--corrections`` reads, and return their number.

    Args:
        file: Path of the table; its folder is created.
        samples: The training samples with their given labels; they have ids.
        labels: Labels after the decisions (N,).
        excluded: Samples that are left out (N,), bool.
    """
    paths = samples.paths or ()
    file.parent.mkdir(parents=True, exist_ok=True)
    decided = ((labels != samples.labels) | excluded).nonzero().flatten().tolist()
    with atomic_write(file) as part, part.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(("path", "given", "decision", "label"))
        for i in decided:
            given, new = samples.classes[int(samples.labels[i])], samples.classes[int(labels[i])]
            writer.writerow((paths[i], given, *(("exclude", "") if excluded[i] else ("relabel", new))))
    return len(decided)


def random_checks(samples: FeatureSet, count: int, seed: int) -> Tensor:
    """Return the labels (N,) after random samples were checked and got their true labels.

    Args:
        samples: The training samples, with true labels.
        count: Number of samples to check.
        seed: Draws them.

    Example:
        >>> features, given, true = torch.zeros(3, 2), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
        >>> random_checks(FeatureSet(features, given, ("cat", "dog"), "pets", true), 3, seed=0).tolist()
        [0, 1, 1]
    """
    assert samples.clean_labels is not None  # noqa: S101 (the caller has true labels)
    checked = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:count]
    labels = samples.labels.clone()
    labels[checked] = samples.clean_labels[checked]
    return labels


def random_changes(samples: FeatureSet, corrections: Corrections, seed: int) -> tuple[Tensor, Tensor]:
    """Return labels (N,) and exclusions (N,) that make the same changes to random other samples of the same labels.

    For every cat that a person relabeled as dog, a random other cat becomes a dog. For every cat that was left out, a
    random other cat is left out. A class with too few other samples gets fewer changes.

    Args:
        samples: The training samples with their given labels.
        corrections: A person's decisions about them.
        seed: Draws the other samples.

    Example:
        >>> samples = FeatureSet(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), ("cat", "dog"), "pets")
        >>> first = torch.tensor([True, False, False, False])
        >>> decided = Corrections(torch.tensor([1, 0, 1, 1]), torch.zeros(4, dtype=torch.bool), first, ())
        >>> random_changes(samples, decided, seed=0)[0].tolist()
        [0, 1, 1, 1]
    """
    generator = torch.Generator().manual_seed(seed)
    labels, excluded = samples.labels.clone(), torch.zeros_like(corrections.excluded)
    changed = (corrections.labels != samples.labels) | corrections.excluded
    for k in sorted({*samples.labels[changed].tolist()}):
        sources = (changed & (samples.labels == k)).nonzero().flatten()
        others = (~corrections.decided & (samples.labels == k)).nonzero().flatten()
        targets = others[torch.randperm(len(others), generator=generator)][: len(sources)]
        sources = sources[: len(targets)]
        labels[targets], excluded[targets] = corrections.labels[sources], corrections.excluded[sources]
    return labels, excluded


def pruned(ranking: FoundSuspects, labels: Tensor) -> Tensor:
    """Return which samples are left out as suspects (N,), bool; the two least suspect of each class always stay.

    Args:
        ranking: The ranking of all training labels.
        labels: The given labels (N,).
    """
    least_suspect_first = ranking.order.flip(0)
    by_class = least_suspect_first[labels[least_suspect_first].argsort(stable=True)]
    ordered = labels[by_class]
    place = torch.empty_like(by_class)
    place[by_class] = torch.arange(len(labels)) - torch.searchsorted(ordered, ordered)
    return ranking.likely_wrong & (place >= _KEPT)
