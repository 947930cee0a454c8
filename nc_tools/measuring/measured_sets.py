"""The training and test images that a report measures, and the batches of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.data import (
    BatchOptions,
    DataConfig,
    Images,
    Sources,
    class_counts,
    evaluation_batches,
    load_data,
    make_subsets,
    with_noise,
)
from nc_tools.data.decode import Progress
from nc_tools.data.folder import list_folder
from nc_tools.data.source_names import parse_source
from nc_tools.records import Batch


@dataclass(frozen=True)
class Drawn:
    """How a run drew its training images.

    Attributes:
        seed: Of the run.
        whole: Whether it trained on the whole subset, or on what a hold-out leaves of it.
    """

    seed: int
    whole: bool


@dataclass(frozen=True, eq=False)
class MeasuredSets:
    """What is measured.

    Attributes:
        sets: The parts of each set by its name, "train" before "test": one, or the two halves of an undivided folder.
        classes: K names.
        mean: (C,), of the training images, in 0..1.
        std: Likewise.
        name: What a report calls the data.
        class_counts: Training images of each class before any limit (K,); None where no training images are known.
    """

    sets: dict[str, tuple[Images, ...]]
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    name: str
    class_counts: Tensor | None


def load_sets(
    config: DataConfig,
    *,
    drawn: Drawn | None = None,
    only: str | None = None,
    per_class: int | None = None,
    progress: Progress | None = None,
) -> MeasuredSets:
    """Load the images of a source.

    Args:
        config: The source with image size and labels.
        drawn: The part of the training images that a run saw, with its label noise; None for all of them.
        only: "train" or "test" for that set alone, None for both.
        per_class: At most so many images of each class and set, always the same; None for all.
        progress: Called while files are decoded.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If a folder has no split of its own and both sets are asked for.
    """
    kind, path = parse_source(config.source)
    whole = kind == "imagefolder" and path is not None and path.is_dir() and not _has_split(path)
    if whole and only is None:
        assert path is not None  # noqa: S101 (told by whole)
        raise ValueError(
            f"a report sets training images against test images, and {path} has no {_missing(path)}: put them there, "
            "or measure the images as one set with --only test"
        )
    if per_class is not None and per_class < 2:
        raise ValueError(f"--per-class must be at least 2, for one image shows no spread, got {per_class}")
    loaded = load_data(replace(config, transfer_data=None), None, progress)
    train = loaded.train if drawn is None else _as_drawn(loaded, config, drawn)
    sets = {"train": train, "test": loaded.test}
    counts = None if whole else class_counts(train.labels, loaded.num_classes)
    if only is not None:
        sets = {only: sets[only]}
    parts = {name: [images] for name, images in sets.items()}
    if whole:  # what the loader split off belongs to the set again
        parts = {only or "": [loaded.train, loaded.test]}
    return MeasuredSets(
        sets={name: tuple(_thinned(part, per_class) for part in images) for name, images in parts.items()},
        classes=loaded.train.classes,
        mean=loaded.mean,
        std=loaded.std,
        name=config.source,
        class_counts=counts,
    )


class SetBatches:
    """Batches of one set, which can be gone through again."""

    def __init__(
        self,
        parts: Sequence[Images],
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        self._parts = parts
        self._options = BatchOptions(batch_size=batch_size, mean=list(mean), std=list(std), device=device)

    def __iter__(self) -> Iterator[Batch]:
        for part in self._parts:
            yield from evaluation_batches(part, None, self._options)


def count_classes(source: str) -> int:
    """Return K of a source, without reading its images."""
    kind, path = parse_source(source)
    if kind == "imagefolder" and path is not None:
        return len(list_folder(path).classes)
    return {"digits": 10, "cifar10": 10, "cifar100": 100}[kind]


def _as_drawn(sources: Sources, config: DataConfig, drawn: Drawn) -> Images:
    """Return the training images of a run: its long tail, its noise, less the hold-out where it had one."""
    tail_labels = sources.train.labels
    if config.noise is not None:
        sources = replace(sources, train=with_noise(sources.train, config.noise, drawn.seed))
    subsets = make_subsets(sources, config, drawn.seed, tail_labels)
    return sources.train.subset(subsets.train if drawn.whole else subsets.fit)


def _has_split(path: Path) -> bool:
    return (path / "train").is_dir() and any((path / name).is_dir() for name in ("test", "val"))


def _missing(path: Path) -> str:
    return "train/" if not (path / "train").is_dir() else "test/ or val/"


def _thinned(images: Images, per_class: int | None) -> Images:
    if per_class is None:
        return images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    labels = images.labels[order]
    by_class = labels.argsort(stable=True)
    counts = class_counts(labels, images.num_classes)
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    chosen = by_class[torch.arange(len(labels)) - starts < per_class]
    return images.subset(order[chosen].sort().values)
