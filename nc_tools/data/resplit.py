"""Draw training and test images anew for each seed: repeated splits, for data with a small test set."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nc_tools.data.duplicates import with_copies
from nc_tools.data.group_split import split_by_group
from nc_tools.data.image_set import ImageFiles, Images, ImageSet, mean_std
from nc_tools.data.imbalance import split_holdout
from nc_tools.data.sources import Sources
from nc_tools.seeds import stream


def resplit(sources: Sources, share: float, seed: int) -> Sources:
    """Return the sources with their training and test images pooled and split anew for one seed.

    The split is stratified by class; groups stay whole, and copies of a picture stay on one side. Mean and standard
    deviation are those of the new training images. Without repeated splits all seeds are tested on the same few hundred
    images, which say little about others; with them, the spread over seeds includes that of the test images. The seeds
    then share images, which ``nc_tools.comparison`` corrects for.

    The labels are those of the source. Labels from files and label noise come after the split, so that images are
    always tested by the labels of the source.

    Args:
        sources: The loaded sets.
        share: Share of all images that become test images, between 0 and 1.
        seed: The run's seed; the split is drawn from its stream "split".

    Raises:
        ValueError: If one of the sets is in memory and the other is not.

    Example:
        >>> from nc_tools.data import DataConfig, load_data
        >>> sources = load_data(DataConfig())
        >>> one, other = resplit(sources, 0.3, seed=0), resplit(sources, 0.3, seed=1)
        >>> len(one.train) + len(one.test) == len(sources.train) + len(sources.test)
        True
        >>> one.test.labels.bincount().equal(other.test.labels.bincount())
        True
    """
    pool = _joined(sources.train, sources.test)
    generator = stream(seed, "split")
    if (groups := with_copies(pool)) is None:
        train, test = split_holdout(pool.labels, share, generator)
    else:
        train, test = split_by_group(pool.labels, groups, share, generator)
    trained = pool.subset(train)
    mean, std = mean_std(trained)
    return replace(sources, train=trained, test=pool.subset(test), mean=mean, std=std)


def _joined(first: Images, second: Images) -> Images:
    """Return both sets as one, the first one's images before the second's."""
    labels = torch.cat([first.labels, second.labels])
    groups = _joined_groups(first.groups, second.groups)
    if isinstance(first, ImageSet) and isinstance(second, ImageSet):
        paths = None if first.paths is None or second.paths is None else first.paths + second.paths
        hashed = first.hashes is not None and second.hashes is not None
        return replace(
            first,
            images=torch.cat([first.images, second.images]),
            labels=labels,
            paths=paths,
            groups=groups,
            hashes=torch.cat([first.digests(), second.digests()]) if hashed else None,
        )
    if isinstance(first, ImageFiles) and isinstance(second, ImageFiles):
        return replace(
            first,
            paths=first.paths + second.paths,
            labels=labels,
            sums=torch.cat([first.sums, second.sums]),
            hashes=torch.cat([first.hashes, second.hashes]),
            groups=groups,
        )
    raise ValueError(
        "data.resplit needs training and test images that are both in memory or both decoded while training, got one "
        "of each: set data.memory_gb"
    )


def _joined_groups(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return the groups of both sets, which are numbered together: a group may have images in both."""
    return None if first is None or second is None else torch.cat([first, second])
