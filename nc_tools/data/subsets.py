"""Draw the training subset and the hold-out of a run, from the data, the configuration and the seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.data.data_config import DataConfig
from nc_tools.data.group_split import split_by_group
from nc_tools.data.imbalance import class_counts, long_tailed, split_holdout, subset_of_counts
from nc_tools.data.sources import Sources
from nc_tools.data.tail_profile import own_counts
from nc_tools.seeds import stream


@dataclass(frozen=True, eq=False)
class Subsets:
    """The training subset, the hold-out and other subsets of a run, as int64 indices into ``sources.train``.

    Attributes:
        train: The training subset, with the long tail if there is one.
        fit: The part of ``train`` on which runs with a hold-out train.
        holdout: The rest of ``train``.
        outside: The training images that are not in ``train``, for the oracle temperature; may be empty.
        counts: Samples of each class in ``train`` (K,), by the labels used in training.
    """

    train: Tensor
    fit: Tensor
    holdout: Tensor
    outside: Tensor
    counts: Tensor

    def check_holdout(self) -> None:
        """Check that the hold-out, which tuning and temperatures need, is not empty.

        Raises:
            ValueError: If it is empty.
        """
        if not len(self.holdout):
            raise ValueError(
                f"none of the {len(self.train):,} training images can be held out for tuning, because that would leave "
                "their class without any: add images, so that some class has two (of two groups, if there are groups)"
            )


def make_subsets(sources: Sources, config: DataConfig, seed: int, tail_labels: Tensor | None = None) -> Subsets:
    """Draw the training subset and the hold-out for one seed.

    They are drawn from the streams "subset" and "holdout" and depend on the labels used in training, so that every arm
    of a comparison gets the same ones. With synthetic noise, pass the labels before the noise as ``tail_labels``. The
    long tail is then drawn first, as in benchmarks of long tails with noise (Wei et al. 2021, Lu et al. 2023); noise on
    the large classes adds samples to the small ones. With corrections, both are drawn by the labels before the
    corrections, and images that the corrections exclude are left out afterwards: arms with and without corrections
    share all other images.

    Args:
        sources: The loaded sets.
        config: Imbalance, profile, protocol and hold-out share.
        seed: The run's seed.
        tail_labels: (N,) the labels by which the long tail is drawn. None: those used in training, before corrections.

    Returns:
        The subsets.

    Raises:
        ValueError: If a class would have no training sample.

    Example:
        >>> from nc_tools.data.load_data import load_data
        >>> config = DataConfig(imbalance=10)
        >>> make_subsets(load_data(config), config, seed=0).counts.tolist()
        [19, 91, 15, 70, 54, 42, 32, 11, 9, 25]
    """
    labels, classes = sources.train.labels, sources.train.classes
    given = labels if sources.given_labels is None else sources.given_labels
    tail_labels = given if tail_labels is None else tail_labels
    if config.class_counts is None:
        train = long_tailed(
            tail_labels,
            len(classes),
            config.imbalance,
            config.profile,
            config.protocol,
            stream(seed, "subset"),
            classes,
            config.pareto_alpha,
            config.tail_order,
        )
    else:
        kept = own_counts(class_counts(tail_labels, len(classes)), config.class_counts, classes)
        train = subset_of_counts(tail_labels, kept, config.protocol, stream(seed, "subset"))
    groups = sources.train.groups
    if groups is None:
        fit, holdout = split_holdout(given[train], config.holdout, stream(seed, "holdout"))
    else:
        fit, holdout = split_by_group(given[train], groups[train], config.holdout, stream(seed, "holdout"))
    inside = torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, train, 1)
    used = torch.ones(len(labels), dtype=torch.bool) if sources.excluded is None else ~sources.excluded
    fit, holdout, outside = train[fit], train[holdout], (~inside).nonzero().flatten()
    train = train[used[train]]
    return Subsets(
        train=train,
        fit=fit[used[fit]],
        holdout=holdout[used[holdout]],
        outside=outside[used[outside]],
        counts=class_counts(labels[train], len(classes)),
    )
