"""Settings of how a table of images is read, which replace what is found by its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

UnclearLabels = Literal["refuse", "skip", "majority"]

NONE = "-"
"""In place of the name of a column: use none for this purpose, even if the table has one."""


@dataclass(frozen=True)
class TableConfig:
    """Settings of a table of images. A column that is None is found by its values, and shown before anything trains.

    Attributes:
        path_column: Name of the column that names images.
        split_column: Name of the column with the words for training and test images; "-" for none.
        group_column: Name of the column of groups, such as patients, that a split keeps whole; "-" for none.
        class_map: A file with the names of labels: JSON, a table of two columns, or a name a line; or None.
        test_table: Another table of the same form for the test images, or None.
        unclear_labels: What to do with rows that have no label or several, and with rows that disagree about an image.
            ``refuse`` stops with an error. ``skip`` leaves these rows and images out. ``majority`` does the same, but
            gives an image about which rows disagree their most frequent label, if there is a single one.
        positive: A label to train against all others, as two classes, where rows may have several labels; or None.

    Raises:
        ValueError: If ``unclear_labels`` is none of the three.
    """

    path_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    class_map: str | None = None
    test_table: str | None = None
    unclear_labels: UnclearLabels = "refuse"
    positive: str | None = None

    def __post_init__(self) -> None:
        if self.unclear_labels not in get_args(UnclearLabels):
            raise ValueError(
                f"table.unclear_labels must be one of {', '.join(get_args(UnclearLabels))}, got {self.unclear_labels!r}"
            )
