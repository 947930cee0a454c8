"""Load the image sets of a run from its configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from nc_tools._support.free_memory import available_memory
from nc_tools.data.builtin import BUILTIN_SPLITS, fit_shape, load_builtin
from nc_tools.data.coarse_labels import coarsened, read_grouping
from nc_tools.data.data_config import DataConfig
from nc_tools.data.decode import Progress, default_size
from nc_tools.data.duplicates import duplicate_sentences, in_both
from nc_tools.data.image_set import Images, mean_std, with_classes
from nc_tools.data.imbalance import class_counts
from nc_tools.data.label_layers import with_label_files
from nc_tools.data.list_source import list_source
from nc_tools.data.listing import ListedImages, Reading, check_classes
from nc_tools.data.ood_sets import load_ood
from nc_tools.data.outlier_source import check_apart, load_outliers
from nc_tools.data.read_images import ReadOptions, conversion_sentence, read_listing
from nc_tools.data.short_list import short_list
from nc_tools.data.source_names import BUILTIN_KINDS, parse_source
from nc_tools.data.sources import Sources, fingerprint
from nc_tools.data.table_config import TableConfig


@dataclass(frozen=True, eq=False)
class _Pair:
    train: Images
    test: Images
    skipped: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    root: Path | None = None


def load_data(config: DataConfig, cache: Path | None = None, progress: Progress | None = None) -> Sources:
    """Load the image sets that a DataConfig names, with their labels.

    Args:
        config: What to load.
        cache: Folder in which decoded image folders are kept for the next run, or None for no cache.
        progress: Called as ``progress(done, total)`` while files are decoded.

    Returns:
        Training, test, transfer and out-of-distribution sets, and the statistics of the training set.

    Raises:
        FileNotFoundError: If a folder or CSV file is missing, or CIFAR is not on disk and cannot be downloaded.
        ValueError: If the data contradict the configuration, or images cannot be read (the message counts them all).

    Example:
        >>> sources = load_data(DataConfig(held_out_classes=3))
        >>> len(sources.train), sources.train.shape, sources.num_classes, sources.transfer_train.num_classes
        (633, (1, 8, 8), 7, 3)
    """
    return with_label_files(load_images(config, cache, progress), config)


def load_images(config: DataConfig, cache: Path | None = None, progress: Progress | None = None) -> Sources:
    """Load the image sets that a DataConfig names, with the labels that their source has.

    The arguments are those of :func:`load_data`; ``labels``, ``clean``, ``corrections`` and ``noise`` are not used.
    """
    limit = available_memory() / 2 if config.memory_gb is None else config.memory_gb * 1e9
    options = ReadOptions(limit, config.skip_unreadable, cache, progress, interpolation=config.interpolation)
    pair = _load_source(config, config.source, config.image_size, None, options)
    pair = _without_duplicates(pair, dropped=config.drop_duplicates, resplit=config.resplit is not None)
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
        fingerprint=fingerprint(*hashed, choices=pair.reading.choices),
        skipped=pair.skipped + skipped_transfer + skipped_ood + skipped_outliers,
        ood=ood,
        outliers=outliers,
        reading=pair.reading,
        root=pair.root,
        images_fingerprint=fingerprint(replace(pair.train, labels=torch.zeros_like(pair.train.labels)), pair.test),
    )


def _all_sets(pair: _Pair, transfer: _Pair | None, ood: Mapping[str, Images]) -> dict[str, Images]:
    sets = {"training": pair.train, "test": pair.test}
    sets |= {f"{name} out-of-distribution": images for name, images in ood.items()}
    if transfer is not None:
        sets |= {"transfer training": transfer.train, "transfer test": transfer.test}
    return sets


def _load_source(
    config: DataConfig, text: str, image_size: int | None, channels: int | None, options: ReadOptions
) -> _Pair:
    source = parse_source(text)
    if source.kind == "embeddings":
        raise ValueError(f"{text} holds features and no images: compare heads on them with nc-tools choose {text}")
    if source.kind in BUILTIN_KINDS:
        train, test = (fit_shape(images, image_size, channels) for images in load_builtin(source.kind, source.path))
        return _Pair(train, test, reading=Reading((f"split: {BUILTIN_SPLITS[source.kind]}",)))
    # Settings of a table are those of the run's own source, and not those of a transfer set.
    table = config.table if text == config.source else TableConfig()
    listed = list_source(source, class_folder=config.class_folder, table=table, skip_missing=config.skip_missing)
    size = image_size or default_size(listed.root, listed.train.paths, config.size_limit)
    return _load_listed(listed, size, channels or 3, options)


def _load_listed(listed: ListedImages, image_size: int, channels: int, options: ReadOptions) -> _Pair:
    size = len(listed.all_images.paths) * channels * image_size * image_size
    listed = replace(listed, reading=listed.reading.adding(*_memory_sentence(size, options.memory_limit)))
    parts = [
        read_listing(
            listed.root, listed.classes, listing, options,
            image_size=image_size, channels=channels, in_memory=size <= options.memory_limit,
            group_names=listed.all_images.groups,
        )
        for listing in (listed.train, listed.test)
    ]  # fmt: skip
    train, test = parts
    if options.skip_unreadable and (skipped := {*train.skipped, *test.skipped}):
        check_classes(listed.without(skipped))
    converted = sum((Counter(part.converted) for part in parts), Counter())
    form = ", ".join(f"{count} {name}" for name, count in sorted(converted.items()))
    reading = listed.reading.adding(*conversion_sentence(converted), **({"converted": form} if form else {}))
    return _Pair(train.images, test.images, train.skipped + test.skipped, reading, listed.root)


def _memory_sentence(size: int, limit: float) -> list[str]:
    """Return a sentence about where the pixels of a set are kept; none for a set in memory that is below 1 GB.

    Args:
        size: Size of the pixels in bytes.
        limit: Bytes of memory that they may take.
    """
    if size > limit:
        return [
            f"the pixels take {_gigabytes(size)}, and {_gigabytes(limit)} of memory are for them (data.memory_gb): "
            "image files are decoded during training, by as many processes as the steps need"
        ]
    return [f"the pixels take {_gigabytes(size)} and are kept in memory"] if size >= 1e9 else []


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _without_duplicates(pair: _Pair, *, dropped: bool, resplit: bool) -> _Pair:
    """Add sentences about pictures that occur twice, and if ``dropped`` leave out training images that are test images.

    Raises:
        ValueError: If no training image of a class is left.
    """
    sentences = duplicate_sentences(pair.train, pair.test, dropped=dropped, resplit=resplit)
    pair = replace(pair, reading=pair.reading.adding(*sentences))
    if not dropped:
        return pair
    train = pair.train.subset((~in_both(pair.train, pair.test)).nonzero().flatten())
    counts = class_counts(train.labels, train.num_classes).tolist()
    if empty := [name for name, count in zip(train.classes, counts, strict=True) if not count]:
        raise ValueError(
            f"every training image of {short_list(empty)} is a test image too, so that --drop-duplicates leaves none: "
            "remove the copies from the test images"
        )
    return replace(pair, train=train)


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
    """Return the images with coarse labels, and the same images with their own labels."""
    groups, group_of = read_grouping(grouping, pair.train.classes)
    train, test = (coarsened(images, groups, group_of) for images in (pair.train, pair.test))
    return replace(pair, train=train, test=test), pair
