"""Load the image sets of a run from its configuration."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from nc_tools._support.free_memory import available_memory
from nc_tools.data.builtin import fit_shape, load_builtin
from nc_tools.data.coarse_labels import coarsened, read_grouping
from nc_tools.data.csv_labels import read_labels
from nc_tools.data.data_config import DataConfig
from nc_tools.data.decode import Progress, default_size
from nc_tools.data.image_set import Images, mean_std, with_classes, with_labels
from nc_tools.data.list_source import list_source
from nc_tools.data.listing import ListedImages, Reading, check_classes
from nc_tools.data.ood_sets import load_ood
from nc_tools.data.outlier_source import check_apart, load_outliers
from nc_tools.data.read_images import ReadOptions, conversion_sentence, read_listing
from nc_tools.data.source_names import BUILTIN_KINDS, parse_labels, parse_source


@dataclass(frozen=True, eq=False)
class Sources:
    """All image sets of a training run.

    Attributes:
        train: All training images, before any subset is drawn.
        test: The test set.
        transfer_train: Images of other classes, or the same images with finer classes, to fit transfer measures on; or
            None.
        transfer_test: Images of those classes to evaluate transfer measures on, or None.
        mean: (C,), over all pixels of ``train``, in 0..1.
        std: (C,), likewise.
        fingerprint: 32 hexadecimal digits that depend on class names, labels and pixels of the sets. The same on
            every machine, and whether or not the pixels fit into memory.
        skipped: Unreadable files that were left out.
        ood: Sets for out-of-distribution scores, by "near", "far" and "held_out".
        outliers: Images to train against, none of which is in another set; None if there are none or they are blended.
        reading: How the source of ``train`` and ``test`` was read.
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
    reading: Reading = field(default_factory=Reading)

    @property
    def num_classes(self) -> int:
        """Number of classes that are trained on, K."""
        return self.train.num_classes


@dataclass(frozen=True, eq=False)
class _Pair:
    train: Images
    test: Images
    skipped: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)


def load_data(config: DataConfig, cache: Path | None = None, progress: Progress | None = None) -> Sources:
    """Load the image sets that a DataConfig names.

    Args:
        config: What to load.
        cache: Folder in which decoded image folders are kept for the next run, or None for no cache.
        progress: Called as ``progress(done, total)`` while files are decoded.

    Returns:
        Training, test, transfer and out-of-distribution sets, and the statistics of the training set.

    Raises:
        FileNotFoundError: If a folder or CSV file is missing, or CIFAR is not on disk and cannot be downloaded.
        ValueError: If the data contradict the configuration, or images cannot be read (all of them are counted).

    Example:
        >>> sources = load_data(DataConfig(held_out_classes=3))
        >>> len(sources.train), sources.train.shape, sources.num_classes, sources.transfer_train.num_classes
        (633, (1, 8, 8), 7, 3)
    """
    limit = available_memory() / 2 if config.memory_gb is None else config.memory_gb * 1e9
    options = ReadOptions(limit, config.skip_unreadable, cache, progress)
    pair = _load_source(config, config.source, config.image_size, None, options)
    if config.labels is not None:
        pair = _replace_labels(pair, config.labels)
    transfer: _Pair | None = None
    if config.held_out_classes:
        pair, transfer = _hold_out_classes(pair, config.held_out_classes)
    elif config.coarse is not None:
        pair, transfer = _coarsen(pair, config.coarse)
    elif config.transfer_data is not None:
        channels, size, _ = pair.train.shape
        transfer = _load_source(config, config.transfer_data, size, channels, options)
    mean, std = mean_std(pair.train)
    ood, skipped_ood = load_ood(config, pair.test, options)
    hashed = [pair.train, pair.test, *((transfer.train, transfer.test) if transfer else ()), *ood.values()]
    if config.held_out_classes and transfer is not None:
        ood["held_out"] = transfer.test
    outliers, skipped_outliers = load_outliers(config, pair.train, options)
    if outliers is not None:
        check_apart(outliers, _all_sets(pair, transfer, ood))
        hashed.append(outliers)
    options.damage.check()
    skipped_transfer = transfer.skipped if transfer and config.transfer_data else ()
    return Sources(
        train=pair.train,
        test=pair.test,
        transfer_train=transfer.train if transfer else None,
        transfer_test=transfer.test if transfer else None,
        mean=mean,
        std=std,
        fingerprint=fingerprint(*hashed),
        skipped=pair.skipped + skipped_transfer + skipped_ood + skipped_outliers,
        ood=ood,
        outliers=outliers,
        reading=pair.reading,
    )


def _all_sets(pair: _Pair, transfer: _Pair | None, ood: Mapping[str, Images]) -> dict[str, Images]:
    sets = {"training": pair.train, "test": pair.test}
    sets |= {f"{name} out-of-distribution": images for name, images in ood.items()}
    if transfer is not None:
        sets |= {"transfer training": transfer.train, "transfer test": transfer.test}
    return sets


def fingerprint(*sets: Images) -> str:
    """Return a hash of class names, labels, sizes and pixels of the image sets: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for images in sets:
        digest.update(json.dumps([images.classes, images.shape, len(images)]).encode())
        for labels in (images.labels, images.clean_labels):
            digest.update(b"" if labels is None else labels.numpy().astype("<i8").tobytes())
        digest.update(images.digests().numpy().tobytes())
    return digest.hexdigest()[:32]


def _load_source(
    config: DataConfig, text: str, image_size: int | None, channels: int | None, options: ReadOptions
) -> _Pair:
    source = parse_source(text)
    if source.kind == "embeddings":
        raise ValueError(f"{text} holds features and no images: compare heads on them with nc-tools choose {text}")
    if source.kind in BUILTIN_KINDS:
        train, test = (fit_shape(images, image_size, channels) for images in load_builtin(source.kind, source.path))
        return _Pair(train, test)
    listed = list_source(source, config)
    return _load_listed(listed, image_size or default_size(listed.root, listed.train.paths), channels or 3, options)


def _load_listed(listed: ListedImages, image_size: int, channels: int, options: ReadOptions) -> _Pair:
    size = len(listed.all_images.paths) * channels * image_size * image_size
    parts = [
        read_listing(
            listed.root, listed.classes, listing, options,
            image_size=image_size, channels=channels, in_memory=size <= options.memory_limit,
        )
        for listing in (listed.train, listed.test)
    ]  # fmt: skip
    train, test = parts
    if options.skip_unreadable and (skipped := {*train.skipped, *test.skipped}):
        check_classes(listed.without(skipped))
    converted = sum((Counter(part.converted) for part in parts), Counter())
    reading = listed.reading.adding(*conversion_sentence(converted))
    return _Pair(train.images, test.images, train.skipped + test.skipped, reading)


def _replace_labels(pair: _Pair, labels: str) -> _Pair:
    file, column = parse_labels(labels)
    train_paths, test_paths = pair.train.paths, pair.test.paths
    assert train_paths is not None and test_paths is not None  # noqa: S101, PT018 (DataConfig requires a folder)
    ignored = {*test_paths, *pair.skipped}
    new = read_labels(file, column, train_paths, pair.train.classes, ignored)
    return replace(pair, train=with_labels(pair.train, new))


def _hold_out_classes(pair: _Pair, number: int) -> tuple[_Pair, _Pair]:
    total = pair.train.num_classes
    stay = total - number
    if stay < 2:
        raise ValueError(
            f"held_out_classes must leave at least two classes to train on, got {number} of {total}: hold out at most "
            f"{total - 2}"
        )
    kept = replace(pair, train=with_classes(pair.train, 0, stay), test=with_classes(pair.test, 0, stay))
    return kept, _Pair(with_classes(pair.train, stay, total), with_classes(pair.test, stay, total))


def _coarsen(pair: _Pair, grouping: str) -> tuple[_Pair, _Pair]:
    """Return the images with coarse labels, and the same ones with their own."""
    groups, group_of = read_grouping(grouping, pair.train.classes)
    train, test = (coarsened(images, groups, group_of) for images in (pair.train, pair.test))
    return replace(pair, train=train, test=test), pair
