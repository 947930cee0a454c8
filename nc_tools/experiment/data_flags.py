"""The command-line flags about data, and the data settings that they make."""

from __future__ import annotations

import argparse
from dataclasses import replace

from nc_tools._support.reading_flags import add_reading_flags
from nc_tools.data import DataConfig
from nc_tools.data.guess_source import guess_source
from nc_tools.data.noise_name import parse_noise
from nc_tools.data.source_names import BUILTIN_KINDS, parse_source


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags about data to a parser, in a group of their own."""
    add = parser.add_argument_group("data").add_argument
    add(
        "--data",
        help="images to train on: imagefolder:PATH, table:FILE[:COLUMN][@FOLDER] for a list of images and labels, "
        "parquet:FILE, hf-dataset:PATH, webdataset:PATTERN, cub:PATH, pets:PATH, tiny-imagenet:PATH, digits, "
        "cifar10[:FOLDER] or cifar100[:FOLDER]; a PATH alone is taken for a folder or a table",
    )
    add(
        "--labels",
        metavar="FILE:COLUMN",
        help="take the training labels from this column of a table, instead of those of the data",
    )
    add(
        "--clean",
        metavar="FILE:COLUMN",
        help="the true training labels, for measures only; 'data' for those that the data have",
    )
    add(
        "--corrections",
        metavar="FILE",
        help="a table of decisions about some of the training labels: keep, relabel or exclude",
    )
    add(
        "--noise",
        metavar="KIND:RATE",
        help="draw wrong training labels, such as symmetric:.4, pair:.3, asymmetric:.4 or instance:.4, or none "
        "(default: none for own images)",
    )
    add(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="resize images to this width and height; for a pretrained network, the size that it gets (default: that "
        "of its weights)",
    )
    add(
        "--imbalance",
        type=float,
        metavar="RATIO",
        help="cut a long tail: the largest class keeps RATIO times the images of the smallest, by class size "
        "(default: own images are used as they are, all of them)",
    )
    add(
        "--resplit",
        type=float,
        metavar="SHARE",
        help="each seed draws its own test set, this share of all images, which helps if there are few",
    )
    add("--transfer-data", metavar="DATA", help="measure transfer of the features to these images, given as for --data")
    add_reading_flags(parser)


def data_from_flags(data: DataConfig, args: argparse.Namespace) -> DataConfig:
    """Return a recipe's data settings with those of the command line.

    Raises:
        ValueError: If a value is wrong, or two contradict each other.
    """
    source = None if args.data is None else guess_source(args.data)
    if source is not None and source != data.source:
        data = _other_source(data, source)
    if args.labels is not None or args.corrections is not None:
        data = replace(data, noise=None)  # labels from a file take the place of the noise that a recipe would draw
    if args.transfer_data is not None:
        data = replace(data, transfer_data=guess_source(args.transfer_data), held_out_classes=0)
    if args.noise is not None:
        data = replace(data, noise=parse_noise(args.noise))
    if args.image_size is not None:
        data = replace(data, image_size=args.image_size)
    if args.imbalance is not None:
        data = replace(data, imbalance=args.imbalance)
    if args.resplit is not None:
        data = replace(data, resplit=args.resplit)
    data = with_reading_flags(data, args)
    return replace(
        data,
        labels=data.labels if args.labels is None else args.labels,
        clean=data.clean if args.clean is None else args.clean,
        corrections=data.corrections if args.corrections is None else args.corrections,
    )


def with_reading_flags(data: DataConfig, args: argparse.Namespace) -> DataConfig:
    """Return data settings with the flags that say how a source is read."""
    test_table = data.table.test_table if args.test_table is None else args.test_table
    return replace(
        data,
        table=replace(data.table, test_table=test_table),
        skip_unreadable=data.skip_unreadable or args.skip_unreadable,
        skip_missing=data.skip_missing or args.skip_missing,
        drop_duplicates=data.drop_duplicates or args.drop_duplicates,
    )


def _other_source(data: DataConfig, source: str) -> DataConfig:
    """Return a recipe's settings for other data than its own.

    The held-out classes and the crop belong to the recipe's own data set. The long tail and the label noise are those
    of a benchmark: images of the user's own are taken as they are, all of them and with their labels.
    """
    data = replace(data, source=source, held_out_classes=0, crop_padding=None)
    if parse_source(source).kind in BUILTIN_KINDS:
        return data
    return replace(data, imbalance=1.0, class_counts=None, tail_order="frequency", noise=None)
