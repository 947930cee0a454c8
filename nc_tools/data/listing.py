"""The image files of a data source before any is decoded: their classes, their split, and how the source was read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.data.group_split import split_by_group
from nc_tools.data.imbalance import class_counts, split_holdout
from nc_tools.data.short_list import short_list

TEST_SHARE = 0.2
"""Share of each class that is used for testing if a source has no split of its own; the same images for all seeds."""
TINY = 4
"""Without groups, a class of at most this many images is not split: all are for training and none for testing."""


@dataclass(frozen=True)
class Reading:
    """How a data source was read.

    Attributes:
        sentences: What was found and chosen, for people; shown before anything trains.
        choices: What was chosen, such as the column of the labels. Part of the data's fingerprint, so nothing in it may
            depend on the machine.
    """

    sentences: tuple[str, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)

    def adding(self, *sentences: str, **choices: str) -> Reading:
        """Return the reading with further sentences and choices."""
        return Reading((*self.sentences, *sentences), {**self.choices, **choices})

    def before(self, *sentences: str) -> Reading:
        """Return the reading with sentences that come first."""
        return Reading((*sentences, *self.sentences), self.choices)


@dataclass(frozen=True, eq=False)
class Listing:
    """The image files of one part of a source.

    Attributes:
        split: Name of the part in the cache of decoded images.
        paths: Relative to the source's root, with forward slashes.
        labels: (N,), int64.
        groups: N names, the group of each image, such as its patient; or None. A split keeps groups whole.
    """

    split: str
    paths: tuple[str, ...]
    labels: Tensor
    groups: tuple[str, ...] | None = None

    def where(self, mask: Tensor) -> Listing:
        """Return the listing of the files for which ``mask`` (N,) is true."""
        keep = mask.tolist()
        kept = tuple(path for path, yes in zip(self.paths, keep, strict=True) if yes)
        groups = None if self.groups is None else tuple(g for g, yes in zip(self.groups, keep, strict=True) if yes)
        return replace(self, paths=kept, labels=self.labels[mask], groups=groups)


@dataclass(frozen=True, eq=False)
class ListedImages:
    """The classes and files of a data source.

    Attributes:
        root: Folder that the paths are relative to.
        classes: K names.
        train: The training images.
        test: The test images.
        reading: How the source was read.
        divided: Whether the source has training and test images of its own; if not, they were split here.
    """

    root: Path
    classes: tuple[str, ...]
    train: Listing
    test: Listing
    reading: Reading = field(default_factory=Reading)
    divided: bool = True

    @property
    def all_images(self) -> Listing:
        """The images of both parts as one listing."""
        groups = None
        if self.train.groups is not None and self.test.groups is not None:
            groups = self.train.groups + self.test.groups
        labels = torch.cat([self.train.labels, self.test.labels])
        return Listing("all", self.train.paths + self.test.paths, labels, groups)

    def without(self, paths: Collection[str]) -> ListedImages:
        """Return the same source without some files."""
        parts = [
            part.where(torch.tensor([path not in paths for path in part.paths], dtype=torch.bool))
            for part in (self.train, self.test)
        ]
        return replace(self, train=parts[0], test=parts[1])


def with_name_groups(parts: Sequence[Listing]) -> tuple[list[Listing], list[str]]:
    """Return the parts with groups by the file names that Roboflow gives, and a sentence about them.

    ``cat_jpg.rf.1a2b.jpg`` and ``cat_jpg.rf.3c4d.jpg`` are two augmented copies of one picture. Parts that have groups
    already, or whose names show no copies, are returned unchanged and without a sentence.

    Args:
        parts: The parts of one source.
    """
    names = [[path.rpartition("/")[2].partition(".rf.") for path in part.paths] for part in parts]
    marked = [before for part in names for before, mark, _ in part if mark]
    if any(part.groups is not None for part in parts) or len(set(marked)) == len(marked):
        return list(parts), []
    groups = [
        tuple(before if mark else path for (before, mark, _), path in zip(of, part.paths, strict=True))
        for of, part in zip(names, parts, strict=True)
    ]
    number = len({group for of in groups for group in of})
    sentence = f"groups: {number:,} pictures, by the names before .rf. (copies that Roboflow made of one picture)"
    return [replace(part, groups=of) for part, of in zip(parts, groups, strict=True)], [sentence]


def similar_classes(classes: Sequence[str]) -> list[str]:
    """Return a sentence about classes whose names differ only in case or blanks; an empty list if there are none."""
    by_name: dict[str, list[str]] = {}
    for name in classes:
        by_name.setdefault(" ".join(name.lower().split()), []).append(name)
    same = [" and ".join(repr(name) for name in names) for names in by_name.values() if len(names) > 1]
    return [f"classes that differ only in case or blanks: {short_list(same)}"] if same else []


def crossing_sentences(train: Listing, test: Listing) -> list[str]:
    """Return a list with a caution if the data's own split has groups in both training and test set."""
    both = {*(train.groups or ())} & {*(test.groups or ())}
    if not both:
        return []
    return [
        f"CAUTION: {len(both):,} groups have training and test images, such as {short_list(sorted(both), 2)}: test "
        "results are too good for new groups; a table can be split anew with --set data.table.split_column=-"
    ]


def split_listing(root: Path, classes: tuple[str, ...], listing: Listing, reading: Reading) -> ListedImages:
    """Split the images of a source that has no test images: 80 / 20 by class, the same for every seed.

    Without groups, a class of at most 4 images is not split: all of them are trained on. If no class has more, each
    class of at least two has one test image. With groups, each group stays whole, see :func:`split_by_group`.
    """
    labels, counts = listing.labels, class_counts(listing.labels, len(classes))
    generator = torch.Generator().manual_seed(0)
    if listing.groups is None:
        _, test = split_holdout(labels, TEST_SHARE, generator)
    else:
        _, test = split_by_group(labels, group_numbers(listing.groups), TEST_SHARE, generator)
    in_test = torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, test, 1)
    whole = (counts <= TINY) & (listing.groups is None)
    if whole.all():
        whole = torch.zeros_like(whole)  # a test set of such classes is better than none
    in_test &= ~whole[labels]
    tiny = [f"{classes[k]} ({int(counts[k])})" for k in whole.nonzero().flatten().tolist()]
    by = "class" if listing.groups is None else "class and group"
    sentence = f"split: none in the data, so 80 / 20 by {by}, the same images for every seed"
    if tiny:
        sentence += f"; classes of up to {TINY} images are trained on whole: {short_list(tiny)}"
    return ListedImages(
        root,
        classes,
        replace(listing.where(~in_test), split=f"{listing.split}-train".lstrip(".-")),
        replace(listing.where(in_test), split=f"{listing.split}-test".lstrip(".-")),
        reading.adding(sentence, split="80/20"),
        divided=False,
    )


def without_untrained(images: ListedImages, *, skip_missing: bool) -> ListedImages:
    """Remove the test images of classes that have no training image.

    Raises:
        ValueError: If there are such test images, and ``skip_missing`` is off.
    """
    counts = class_counts(images.train.labels, len(images.classes))
    if bool((counts > 0).all()):
        return images
    unknown = [name for name, count in zip(images.classes, counts.tolist(), strict=True) if not count]
    if not skip_missing:
        raise ValueError(
            f"every class needs at least one training image, but {short_list(unknown)} of {images.root} "
            f"{'has' if len(unknown) == 1 else 'have'} test images only: add training images, or leave these test "
            "images out with --skip-missing"
        )
    classes = tuple(name for name, count in zip(images.classes, counts.tolist(), strict=True) if count)
    position = (counts > 0).cumsum(0) - 1
    train = replace(images.train, labels=position[images.train.labels])
    test = images.test.where(counts[images.test.labels] > 0)
    sentence = f"test images of {short_list(unknown)} are left out: nothing is trained on them"
    return replace(
        images,
        classes=classes,
        train=train,
        test=replace(test, labels=position[test.labels]),
        reading=images.reading.adding(sentence),
    )


def group_numbers(groups: Sequence[str], names: Sequence[str] | None = None) -> Tensor:
    """Return the number of each sample's group (N,), int64.

    Args:
        groups: N names, the group of each sample.
        names: Group names in the order in which they are numbered, where repeated names do not count; None for the
            order in ``groups``.

    Example:
        >>> group_numbers(["ann", "bob", "ann"]).tolist()
        [0, 1, 0]
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(groups if names is None else names))}
    return torch.tensor([numbers[name] for name in groups], dtype=torch.int64)


def check_classes(images: ListedImages) -> None:
    """Check that there are at least two classes, a training image of each class, and a test image.

    Raises:
        ValueError: If one of these is missing; the message names the classes.
    """
    if len(images.classes) < 2:
        raise ValueError(
            f"a classifier needs images of at least two classes, but {images.root} has only {images.classes[0]}: give "
            f"a folder for each class, or a table of labels, table:FILE@{images.root}"
        )
    counts = class_counts(images.train.labels, len(images.classes)).tolist()
    if empty := [name for name, count in zip(images.classes, counts, strict=True) if not count]:
        raise ValueError(
            f"every class needs at least one training image, but the {images.train.split} part of {images.root} has "
            f"none of {short_list(empty)}: add training images of these classes, or remove their test images"
        )
    if not images.test.paths:
        raise ValueError(
            f"a comparison needs test images, but none can be taken from {images.root}, because every class has only "
            f"one {'image' if images.train.groups is None else 'image or group'}: add images, or test images in a "
            f"folder {images.root / 'test'}"
        )
