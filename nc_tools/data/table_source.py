"""A table as a source of images: it chooses the images, their labels, their split and their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.data.class_map import read_class_map
from nc_tools.data.folder_walk import FolderWalk
from nc_tools.data.label_column import LabelError, classes_of
from nc_tools.data.listing import (
    ListedImages,
    Listing,
    Reading,
    check_classes,
    crossing_sentences,
    similar_classes,
    split_listing,
    with_name_groups,
    without_untrained,
)
from nc_tools.data.table_config import TableConfig
from nc_tools.data.table_name import TableName
from nc_tools.data.table_rows import TableRows, read_table_rows


def list_table(name: TableName, config: TableConfig, *, skip_missing: bool, check: bool = True) -> ListedImages:
    """List the images that a table names, with their labels, their split and their groups.

    Images without a row are left out, and counted. The split is given by a second table with the test images, or by a
    column with words such as "train" and "test"; without these it is 80 / 20 by class and group.

    Args:
        name: The table, its label column (None to find it), and the folder of the images (None: that of the table).
        config: Settings that overrule what is found.
        skip_missing: Leave out rows without an image, and test images of classes without training images.
        check: Require what a comparison needs: two classes, and a test image.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If no column names images, it is not clear what the labels are, or rows are without image or label.
    """
    walk = FolderWalk((name.root or name.file.parent).resolve())
    walk.claim("")
    files = tuple(walk.images("", leave_out=()))
    if not files:
        raise ValueError(f"there are no images in {walk.root}: give their folder after @, as in table:FILE@FOLDER")
    parts = [read_table_rows(name.file, name.column, files, walk.root, config, skip_missing=skip_missing)]
    if config.test_table is not None:
        column = name.column or ",".join(parts[0].table.columns[j] for j in parts[0].columns.labels) or None
        test_file = Path(config.test_table).expanduser()
        parts.append(read_table_rows(test_file, column, files, walk.root, config, skip_missing=skip_missing))
    classes, labels, how = _classes(parts, config, guessed=name.column is None)
    sentences = [sentence for part in parts for sentence in part.sentences]
    sentences += [f"labels: {parts[0].label_source} ({how})", *_group_sentences(parts), *walk.sentences()]
    if unused := len(files) - len({image for part in parts for image in part.images}):
        sentences.append(f"{unused:,} of {len(files):,} images there have no row and are left out")
    listings = [
        Listing(f"table-{part.table.file.name}", tuple(files[i] for i in part.images), of_part, part.groups)
        for part, of_part in zip(parts, labels, strict=True)
    ]
    listings, named = with_name_groups(listings)
    reading = Reading((*sentences, *similar_classes(classes), *named), _choices(parts, config))
    listed = without_untrained(_split(walk.root, classes, parts, listings, reading), skip_missing=skip_missing)
    if check:
        check_classes(listed)
    return listed


def _classes(
    parts: Sequence[TableRows], config: TableConfig, *, guessed: bool
) -> tuple[tuple[str, ...], list[Tensor], str]:
    """Return the classes of all parts together, the labels of each part, and how they were read."""
    values = [label for part in parts for label in part.labels]
    file = parts[0].table.file
    if not values:
        raise ValueError(f"no row of {file} has an image and a label: check its columns")
    class_map = None
    if config.class_map is not None:
        class_map = read_class_map(Path(config.class_map).expanduser(), set(values))
    try:
        classes, labels, how = classes_of(values, class_map)
    except LabelError as error:
        raise ValueError(f"the column of labels of {file} {error}") from None
    if guessed and len(classes) > 2 and 2 * len(classes) > len(values):
        raise ValueError(
            f"the labels of {file} are {len(classes)} different values in {len(values)} rows, which is too many for "
            "classes: name a column after the file, as in table:FILE:COLUMN"
        )
    ends = torch.tensor([len(part.labels) for part in parts]).cumsum(0).tolist()
    return classes, [labels[end - len(part.labels) : end] for part, end in zip(parts, ends, strict=True)], how


def _split(
    root: Path, classes: tuple[str, ...], parts: Sequence[TableRows], listings: Sequence[Listing], reading: Reading
) -> ListedImages:
    """Return the images, split by a second table, by a column, or 80 / 20."""
    if len(parts) == 2:
        train, test = listings
        sentence = f"split: {parts[0].table.file.name} is for training, {parts[1].table.file.name} for testing"
        if both := {*train.paths} & {*test.paths}:
            raise ValueError(
                f"{len(both)} images are in both tables, such as {min(both)}: an image that is trained on must not be "
                "tested"
            )
        reading = reading.adding(sentence, *crossing_sentences(train, test))
        return ListedImages(root, classes, train, test, reading)
    (part,), (listing,) = parts, listings
    if part.columns.roles is None or part.columns.split is None:
        return split_listing(root, classes, listing, reading)
    column, roles = part.table.columns[part.columns.split], [part.columns.roles[row] for row in part.rows]
    counts = {role: roles.count(role) for role in ("train", "val", "test", None)}
    anew = "split anew with --set data.table.split_column=-"
    if counts[None]:
        raise ValueError(
            f"{counts[None]:,} of {len(roles):,} rows of {part.table.file} have no value in column {column!r}, which "
            f"is the split: fill it, or {anew}"
        )
    held = "test" if counts["test"] else "val"
    if not counts["train"] or not counts[held]:
        raise ValueError(
            f"column {column!r} of {part.table.file} has {counts['train']:,} rows for training and {counts[held]:,} "
            f"for testing, and both are needed: correct it, or {anew}"
        )
    sentence = f"split: column {column}, {counts['train']:,} for training and {counts[held]:,} for testing"
    if held == "test" and counts["val"]:
        sentence += f"; {counts['val']:,} for validation are not used (a run draws its own hold-out)"
    train, test = (
        replace(listing.where(torch.tensor([role == wanted for role in roles])), split=f"{listing.split}-{wanted}")
        for wanted in ("train", held)
    )
    return ListedImages(root, classes, train, test, reading.adding(sentence, *crossing_sentences(train, test)))


def _group_sentences(parts: Sequence[TableRows]) -> list[str]:
    sentences = []
    for part in parts:
        if (groups := part.groups) is None or (j := part.columns.group) is None:
            continue
        blank = sum(not part.table.rows[row][j] for row in part.rows)
        text = f"groups: column {part.table.columns[j]}, {len(set(groups)):,} groups, which stay whole in each split"
        sentences.append(text + (f"; {blank:,} rows without one are groups of their own" if blank else ""))
    return sentences


def _choices(parts: Sequence[TableRows], config: TableConfig) -> Mapping[str, str]:
    choices = {}
    for name, part in zip(("table", "test_table"), parts, strict=False):
        table, columns = part.table, part.columns
        choices[name] = table.file.name
        choices[f"{name} form"] = table.form
        choices[f"{name} images"] = table.columns[table.path_column]
        choices[f"{name} labels"] = ", ".join(table.columns[j] for j in columns.labels) or "folder"
        for role, j in (("split", columns.split), ("groups", columns.group)):
            choices |= {} if j is None else {f"{name} {role}": table.columns[j]}
    settings = {"class_map": config.class_map and Path(config.class_map).name, "positive": config.positive}
    return choices | {key: value for key, value in settings.items() if value}
