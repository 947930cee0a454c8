"""From a data configuration to the image sets of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.free_memory import available_memory
from nc_tools.data.builtin import fit_shape, load_builtin
from nc_tools.data.coarse_labels import coarsened, read_grouping
from nc_tools.data.csv_labels import read_labels
from nc_tools.data.data_config import DataConfig
from nc_tools.data.decode import Progress
from nc_tools.data.folder import (
    FolderContents,
    FolderTree,
    check_classes,
    choose_size,
    list_folder,
    read_listing,
)
from nc_tools.data.image_set import Images, mean_std, with_classes, with_labels
from nc_tools.data.ood_sets import load_ood
from nc_tools.data.outlier_source import check_apart, load_outliers
from nc_tools.data.source_names import SourceName, parse_labels, parse_source


@dataclass(frozen=True, eq=False)
class Sources:
    """All images of a run.

    Attributes:
        train: The whole training set, before any subset is drawn.
        test: The test set.
        transfer_train: Images of other classes, or the same under finer ones, to fit a transfer measure on, or None.
        transfer_test: Images of those classes to measure it on, or None.
        mean: (C,), over all pixels of ``train``, in 0..1.
        std: (C,), likewise.
        fingerprint: 32 hexadecimal digits of what the sets hold: class names, labels and pixels. The same on
            every machine, and whether or not the pixels fit into memory.
        skipped: Unreadable files that were left out.
        ood: Images of no class that is trained on, by "near", "far" and "held_out": for out-of-distribution scores.
        outliers: Images of no class to train against, which share none with the sets above; None where there are none
            or where they are blended.
    """

    train: Images
    test: Images
    transfer_train: Images | None
    transfer_test: Images | None
    mean: Tensor
    std: Tensor
    fingerprint: str
    skipped: tuple[str, ...]
    ood: Mapping[str, Images] = field(default_factory=dict)
    outliers: Images | None = None

    @property
    def num_classes(self) -> int:
        """K of the classes trained on."""
        return self.train.num_classes


@dataclass(frozen=True, eq=False)
class _Pair:
    train: Images
    test: Images
    skipped: tuple[str, ...] = ()


def load_data(config: DataConfig, cache: Path | None = None, progress: Progress | None = None) -> Sources:
    """Load the images that ``config`` names.

    Args:
        config: What to load.
        cache: Folder where decoded image folders are kept for the next run, or None for no cache.
        progress: Called as ``progress(done, total)`` while files are decoded.

    Returns:
        Train, test, transfer and out-of-distribution sets, and the statistics of the first.

    Raises:
        FileNotFoundError: If a folder or CSV is missing, or CIFAR is neither on disk nor to be had.
        ValueError: If the data contradict the configuration; images that cannot be read are all counted.

    Example:
        >>> sources = load(DataConfig(held_out_classes=3))
        >>> len(sources.train), sources.train.shape, sources.num_classes, sources.transfer_train.num_classes
        (633, (1, 8, 8), 7, 3)
    """
    limit = available_memory() / 2 if config.memory_gb is None else config.memory_gb * 1e9
    pair = _load_source(parse_source(config.source), config, config.image_size, None, limit, cache, progress)
    if config.labels is not None:
        pair = _override_labels(pair, config.labels)
    transfer: _Pair | None = None
    if config.held_out_classes:
        pair, transfer = _hold_out_classes(pair, config.held_out_classes)
    elif config.coarse is not None:
        pair, transfer = _coarsen(pair, config.coarse)
    elif config.transfer_data is not None:
        channels, size, _ = pair.train.shape
        transfer = _load_source(parse_source(config.transfer_data), config, size, channels, limit, cache, progress)
    mean, std = mean_std(pair.train)
    parts = [pair, *([transfer] if transfer else [])]
    ood, left = load_ood(config, pair.test, limit, cache, progress)
    measured = [*(images for part in parts for images in (part.train, part.test)), *ood.values()]
    if config.held_out_classes and transfer is not None:
        ood["held_out"] = transfer.test
    outliers, lost = load_outliers(config, pair.train, limit, cache, progress)
    if outliers is not None:
        sets = {
            "training": pair.train,
            "test": pair.test,
            **{f"{name} out-of-distribution": s for name, s in ood.items()},
        }
        if transfer is not None:
            sets |= {"transfer training": transfer.train, "transfer test": transfer.test}
        check_apart(outliers, sets)
        measured.append(outliers)
    return Sources(
        train=pair.train,
        test=pair.test,
        transfer_train=transfer.train if transfer else None,
        transfer_test=transfer.test if transfer else None,
        mean=mean,
        std=std,
        fingerprint=fingerprint(*measured),
        skipped=pair.skipped + (transfer.skipped if transfer and config.transfer_data else ()) + left + lost,
        ood=ood,
        outliers=outliers,
    )


def fingerprint(*sets: Images) -> str:
    """Return 32 hexadecimal digits that depend on class names, labels, sizes and pixels of the sets."""
    whole = hashlib.sha256()
    for images in sets:
        whole.update(json.dumps([images.classes, images.shape, len(images)]).encode())
        for labels in (images.labels, images.clean_labels):
            whole.update(b"" if labels is None else labels.numpy().astype("<i8").tobytes())
        whole.update(images.digests().numpy().tobytes())
    return whole.hexdigest()[:32]


def _load_source(
    source: SourceName,
    config: DataConfig,
    image_size: int | None,
    channels: int | None,
    limit: float,
    cache: Path | None,
    progress: Progress | None,
) -> _Pair:
    if source.folder is not None:
        tree = list_folder(source.folder)
        size = image_size or choose_size(tree)
        depth = channels or 3
        needed = (len(tree.train.paths) + len(tree.test.paths)) * depth * size * size
        how = FolderContents(size, depth, needed <= limit, config.skip_unreadable, cache, progress)
        return _load_folder(tree, how)
    train, test = (fit_shape(images, image_size, channels) for images in load_builtin(source.kind, source.path))
    return _Pair(train, test)


def _load_folder(tree: FolderTree, how: FolderContents) -> _Pair:
    train, skipped_train = read_listing(tree, tree.train, how)
    test, skipped_test = read_listing(tree, tree.test, how)
    left = {*skipped_train, *skipped_test}
    if left:
        check_classes(
            replace(
                tree,
                train=tree.train.where(torch.tensor([path not in left for path in tree.train.paths])),
                test=tree.test.where(torch.tensor([path not in left for path in tree.test.paths])),
            )
        )
    return _Pair(train, test, skipped_train + skipped_test)


def _override_labels(pair: _Pair, labels: str) -> _Pair:
    file, column = parse_labels(labels)
    known = pair.train.paths, pair.test.paths
    assert known[0] is not None and known[1] is not None  # noqa: S101, PT018 (DataConfig asks for a folder)
    others = {*known[1], *pair.skipped}
    return replace(
        pair,
        train=with_labels(pair.train, read_labels(file, column, known[0], pair.train.classes, others)),
    )


def _hold_out_classes(pair: _Pair, held_out: int) -> tuple[_Pair, _Pair]:
    total = pair.train.num_classes
    stay = total - held_out
    if stay < 2:
        raise ValueError(
            f"at least two classes must stay to train on, and held_out_classes={held_out} of {total} leaves "
            f"{stay}: hold out at most {total - 2}"
        )
    kept = replace(pair, train=with_classes(pair.train, 0, stay), test=with_classes(pair.test, 0, stay))
    away = _Pair(with_classes(pair.train, stay, total), with_classes(pair.test, stay, total))
    return kept, away


def _coarsen(pair: _Pair, grouping: str) -> tuple[_Pair, _Pair]:
    """Return the images under coarse labels, and the same ones under their own."""
    groups, group_of = read_grouping(grouping, pair.train.classes)
    train, test = (coarsened(images, groups, group_of) for images in (pair.train, pair.test))
    return replace(pair, train=train, test=test), pair
