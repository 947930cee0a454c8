"""What a run says about its data before anything trains: classes with counts, split, what is left out, label noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools.data.data_config import DataConfig
from nc_tools.data.image_set import Images
from nc_tools.data.imbalance import class_counts
from nc_tools.data.listing import ListedImages
from nc_tools.data.short_list import short_list
from nc_tools.data.sources import Sources
from nc_tools.data.subsets import Subsets
from nc_tools.data.tail_profile import limiting_class

_ALL_NAMED = 12
_ENDS = 4
_UNEVEN = 2


def first_lines(
    sources: Sources, config: DataConfig, subsets: Subsets, given_labels: Tensor, *, tuned: bool = True
) -> list[str]:
    """Return the lines that say what a run's data are, for any source.

    Args:
        sources: The loaded sets, with the label noise of the run.
        config: The configuration of the data.
        subsets: The training subset and the hold-out of a seed.
        given_labels: (N,) the training labels before noise was drawn onto them.
        tuned: Whether something is tuned on the hold-out; if not, there is no line about it.
    """
    train, test = sources.train, sources.test
    channels, height, width = train.shape
    lines = [
        f"data {config.source}: {len(train):,} training and {len(test):,} test images of {len(train.classes)} classes, "
        f"{channels} x {height} x {width}",
        *_noise(train, config, subsets, given_labels),
        *sources.reading.sentences,
        f"training images of each class: {counts_text(train.classes, subsets.counts)}",
    ]
    available = torch.ones(len(train), dtype=torch.bool) if sources.excluded is None else ~sources.excluded
    lines += _left_out(train, available, config, subsets, given_labels)
    share = len(subsets.holdout) / max(1, len(subsets.train))
    if tuned:
        lines.append(
            f"hold-out for tuning: {len(subsets.holdout):,} of the training images ({share:.0%}), drawn anew for each "
            f"seed"
        )
    lines += _test_set(test.classes, class_counts(test.labels, len(test.classes)), subsets.counts)
    if sources.skipped:
        lines.append(f"left out, because they cannot be read: {len(sources.skipped)} ({short_list(sources.skipped)})")
    return lines


def listing_lines(source: str, listed: ListedImages) -> list[str]:
    """Return the lines that say what a source is, before any of its images is opened.

    Args:
        source: Name of the source, as it was given.
        listed: Files of the source.
    """
    train, test = (class_counts(part.labels, len(listed.classes)) for part in (listed.train, listed.test))
    return [
        f"data {source}: {len(listed.train.paths):,} training and {len(listed.test.paths):,} test images of "
        f"{len(listed.classes)} classes",
        *listed.reading.sentences,
        f"training images of each class: {counts_text(listed.classes, train)}",
        *_test_set(listed.classes, test, train),
    ]


def _noise(train: Images, config: DataConfig, subsets: Subsets, given_labels: Tensor) -> list[str]:
    if config.noise is None:
        return []
    wrong = int((train.labels != given_labels)[subsets.train].sum())
    return [
        f"label noise is drawn onto the training labels: {config.noise}; {wrong:,} of {len(subsets.train):,} are wrong "
        "at the first seed"
    ]


def counts_text(classes: Sequence[str], counts: Tensor) -> str:
    """Return classes with their numbers of images, the largest first: all of them, or the largest and the smallest.

    Example:
        >>> import torch
        >>> counts_text(["ape", "bat", "cow"], torch.tensor([5, 50, 20]))
        'bat 50, cow 20, ape 5; median 20'
    """
    order = counts.argsort(descending=True, stable=True).tolist()
    parts = [f"{classes[k]} {int(counts[k]):,}" for k in order]
    median = f"{statistics.median(counts.tolist()):,.1f}".removesuffix(".0")
    if len(parts) <= _ALL_NAMED:
        return f"{', '.join(parts)}; median {median}"
    most, fewest = ", ".join(parts[:_ENDS]), ", ".join(parts[-_ENDS:])
    return f"most {most}; median {median}; fewest {fewest}"


def _left_out(
    train: Images, available: Tensor, config: DataConfig, subsets: Subsets, given_labels: Tensor
) -> list[str]:
    """Return a line that says how many of the available training images a long tail leaves out, and why.

    Args:
        train: The training set.
        available: (N,) bool, the images that corrections do not exclude.
        config: The configuration of the data.
        subsets: The training subset.
        given_labels: (N,) the labels by which the long tail is drawn.
    """
    rest = int(available.sum()) - len(subsets.train)
    if not rest:
        return []
    if config.class_counts is not None:
        why = "class_counts"
    else:
        counts = class_counts(given_labels, len(train.classes))
        form = (config.profile, config.pareto_alpha, config.tail_order)
        k = limiting_class(counts, config.imbalance, *form)
        order = "class size" if config.tail_order == "frequency" else "the order of the classes"
        why = f"imbalance {config.imbalance:g}, {config.profile}, by {order}; {train.classes[k]} with "
        why += f"{int(counts[k]):,} images limits the others"
    return [f"{rest:,} of {len(train):,} training images are left out ({why})"]


def _test_set(classes: Sequence[str], counts: Tensor, train_counts: Tensor) -> list[str]:
    """Return lines that say which classes have no test image, and whether the test set is imbalanced."""
    lines = []
    if missing := [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]:
        lines.append(
            f"no test image of {len(missing)} classes: {short_list(missing)}; accuracies are over the other classes"
        )
    present = counts[counts > 0]
    if int(present.max()) > _UNEVEN * int(present.min()):
        same = _rank_correlation(counts.double(), train_counts.double()) > 0.5
        lines.append(
            f"the test set is imbalanced{' as the training set is' if same else ''} ({int(present.max()):,} to "
            f"{int(present.min()):,} images a class): plain accuracy is mostly about the large classes, balanced "
            "accuracy counts each class once"
        )
    return lines


def _rank_correlation(x: Tensor, y: Tensor) -> float:
    from scipy.stats import spearmanr

    value = float(spearmanr(x.numpy(), y.numpy()).statistic) if len(set(y.tolist())) > 1 else 0.0
    return value if value == value else 0.0
