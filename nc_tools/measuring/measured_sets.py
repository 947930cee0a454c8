"""Load the training and test images on which collapse is measured, and make batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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
from nc_tools.data.list_source import list_source
from nc_tools.data.source_names import BUILTIN_KINDS, parse_source
from nc_tools.records import Batch


@dataclass(frozen=True)
class TrainedSubset:
    """The part of the training images that a run was trained on.

    Attributes:
        seed: Seed of the run, from which the subset is drawn.
        with_holdout: True if the run was trained on the whole subset, False if on the subset without its hold-out.
    """

    seed: int
    with_holdout: bool


@dataclass(frozen=True, eq=False)
class MeasuredSets:
    """The image sets on which collapse is measured.

    Attributes:
        sets: The parts of each set by its name, "train" before "test". A set has one part; a folder without a split has
            two, the images that the loader split into training and test.
        classes: K names.
        mean: Mean of each channel of the training images (C,), for pixels in 0..1.
        std: Standard deviation of each channel (C,), likewise.
        name: Name of the data in reports.
        class_counts: Training images of each class before any limit (K,); None if the folder has no split.
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
    trained_on: TrainedSubset | None = None,
    only: str | None = None,
    per_class: int | None = None,
    progress: Progress | None = None,
) -> MeasuredSets:
    """Load the image sets on which collapse is measured.

    Args:
        config: The data source, with image size and labels.
        trained_on: The part of the training images that a run was trained on, with its label noise; None for all.
        only: "train" or "test" for that set alone, None for both.
        per_class: Limit of images per class and set, None for all. The same images are chosen every time.
        progress: Called while files are decoded, with the number decoded and the total.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If both sets are requested of a folder without a split into training and test images, or
            ``per_class`` is below 2.
    """
    source = parse_source(config.source)
    kind, path = source
    undivided = kind not in BUILTIN_KINDS and not list_source(source, class_folder=config.class_folder).divided
    if undivided and only is None:
        raise ValueError(
            f"a report compares training and test images, but {path} has no folders train/ and test/ (or val/). Add "
            "them, or measure all images as one set with --only test"
        )
    if per_class is not None and per_class < 2:
        raise ValueError(f"--per-class must be at least 2, since one image has no spread, got {per_class}")
    loaded = load_data(replace(config, transfer_data=None), None, progress)
    train = loaded.train if trained_on is None else _trained_images(loaded, config, trained_on)
    sets = {"train": train, "test": loaded.test}
    counts = None if undivided else class_counts(train.labels, loaded.num_classes)
    if only is not None:
        sets = {only: sets[only]}
    parts = {name: [images] for name, images in sets.items()}
    if undivided:  # put both parts back into one set
        parts = {only or "": [loaded.train, loaded.test]}
    return MeasuredSets(
        sets={name: tuple(_limit_per_class(part, per_class) for part in images) for name, images in parts.items()},
        classes=loaded.train.classes,
        mean=loaded.mean,
        std=loaded.std,
        name=config.source,
        class_counts=counts,
    )


class SetBatches:
    """Batches of one image set, which can be iterated several times.

    Args:
        parts: The parts of the set.
        batch_size: Images in a batch.
        mean: Mean of each channel, for pixels in 0..1.
        std: Standard deviation of each channel, likewise.
        device: Where the batches go.
        geometry: Resizes and crops pixels, or None.
    """

    def __init__(
        self,
        parts: Sequence[Images],
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        geometry: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._parts = parts
        self._options = BatchOptions(
            batch_size=batch_size, mean=list(mean), std=list(std), device=device, geometry=geometry
        )

    def __iter__(self) -> Iterator[Batch]:
        for part in self._parts:
            yield from evaluation_batches(part, None, self._options)


def count_classes(source: str) -> int:
    """Return the number of classes of a data source, such as "imagefolder:PATH", without reading its images."""
    parsed = parse_source(source)
    if parsed.kind in BUILTIN_KINDS:
        return {"digits": 10, "cifar10": 10, "cifar100": 100}[parsed.kind]
    return len(list_source(parsed).classes)


def _trained_images(sources: Sources, config: DataConfig, trained_on: TrainedSubset) -> Images:
    """Return the training images of a run: its long-tailed subset with its label noise, without its hold-out."""
    tail_labels = sources.train.labels if sources.given_labels is None else sources.given_labels
    if config.noise is not None:
        sources = replace(sources, train=with_noise(sources.train, config.noise, trained_on.seed))
    subsets = make_subsets(sources, config, trained_on.seed, tail_labels)
    return sources.train.subset(subsets.train if trained_on.with_holdout else subsets.fit)


def _limit_per_class(images: Images, per_class: int | None) -> Images:
    if per_class is None:
        return images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    labels = images.labels[order]
    by_class = labels.argsort(stable=True)
    counts = class_counts(labels, images.num_classes)
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    chosen = by_class[torch.arange(len(labels)) - starts < per_class]
    return images.subset(order[chosen].sort().values)
