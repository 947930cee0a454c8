"""Labels of the training images from files: given labels, true labels for measures only, and a person's corrections."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.data.corrections import read_corrections
from nc_tools.data.data_config import DataConfig
from nc_tools.data.image_set import Images
from nc_tools.data.label_files import LabeledPaths, read_labels
from nc_tools.data.source_names import OWN_LABELS, parse_labels
from nc_tools.data.sources import Sources


def with_label_files(sources: Sources, config: DataConfig) -> Sources:
    """Return the same images with the labels that a DataConfig takes from files.

    ``labels`` replace the training labels, ``clean`` are the true ones, and ``corrections`` change some of the labels
    and leave images out. Images without a row in ``labels`` are left out with ``skip_missing``; without it they are an
    error. The test set keeps its labels.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file does not fit the images or classes, or the labels agree with those of the source no better
            than by chance.
    """
    if config.labels is None and config.clean is None and config.corrections is None:
        return sources
    own = sources.train.labels
    sentences: list[str] = []
    train, true = sources.train, None
    if config.clean == OWN_LABELS:
        true = own
        sentences.append("true labels, for measures only: those of the data")
    elif config.clean is not None:
        file, column = parse_labels(config.clean)
        read = read_labels(file, column, _paths(sources), train.classes, skip_missing=config.skip_missing)
        true = read.labels
        sentences.append(f"true labels, for measures only: {'; '.join(read.sentences)}")
    has_row = torch.ones(len(train), dtype=torch.bool)
    if config.labels is not None:
        file, column = parse_labels(config.labels)
        read = read_labels(file, column, _paths(sources), train.classes, skip_missing=config.skip_missing)
        has_row = read.labels >= 0
        train = replace(train, labels=torch.where(has_row, read.labels, own))
        sentences += [f"given labels: {read.sentences[0]}", *read.sentences[1:]]
        sentences.append(_agreement(train, own, has_row))
    if true is not None and bool((true[has_row] < 0).any()):
        missing = int((true[has_row] < 0).sum())
        raise ValueError(f"clean must give the true label of every training image, but {missing:,} have none: add rows")
    train = replace(train, clean_labels=None if true is None else true.clamp(min=0))
    given, excluded = train.labels, None
    if config.corrections is not None:
        file = Path(config.corrections).expanduser()
        fixed = read_corrections(file, _paths(sources), train.classes, given, skip_missing=config.skip_missing)
        train, excluded = replace(train, labels=fixed.labels), fixed.excluded
        sentences += fixed.sentences
    if not bool(has_row.all()):
        keep = has_row.nonzero().flatten()
        train, given = train.subset(keep), given[keep]
        excluded = None if excluded is None else excluded[keep]
        digest = hashlib.sha256(sources.images_fingerprint.encode() + keep.numpy().astype("<i8").tobytes())
        sources = replace(sources, images_fingerprint=digest.hexdigest()[:32])
    return replace(
        sources,
        train=train,
        given_labels=given,
        excluded=excluded,
        fingerprint=_fingerprint(sources, train, excluded),
        reading=sources.reading.adding(*sentences),
    )


def _paths(sources: Sources) -> LabeledPaths:
    train, test = sources.train.paths, sources.test.paths
    assert train is not None and test is not None  # noqa: S101, PT018 (DataConfig requires a source with files)
    return LabeledPaths(sources.root or Path(), train, (*test, *sources.skipped))


def _agreement(train: Images, own: Tensor, has_row: Tensor) -> str:
    """Return a sentence about the share of labels that differ from those of the source.

    Raises:
        ValueError: If the share of equal labels is at most that of two independent columns with these class shares.
    """
    new, old = train.labels[has_row], own[has_row]
    number = len(train.classes)
    shares = [torch.bincount(labels, minlength=number).double() / len(labels) for labels in (new, old)]
    chance, same = float(shares[0] @ shares[1]), float((new == old).double().mean())
    if same <= chance:
        raise ValueError(
            f"only {same:.0%} of the labels agree with those of the data, no more than by chance ({chance:.0%}), and "
            "the test images keep the latter: the column seems to mean something else; name another one, or give the "
            "table as --data, which then labels the test images too"
        )
    return f"{1 - same:.1%} of the given labels differ from those of the data, by which the test images are labeled"


def _fingerprint(sources: Sources, train: Images, excluded: Tensor | None) -> str:
    digest = hashlib.sha256(json.dumps([sources.fingerprint, len(train)]).encode())
    for values in (train.labels, train.clean_labels, excluded):
        digest.update(b"-" if values is None else values.numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:32]
