"""Settings that overrule what is found in a table of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

UnclearLabels = Literal["refuse", "skip", "majority"]

NONE = "-"
"""Names no column: nothing is used for this purpose, whatever the table has."""


@dataclass(frozen=True)
class TableConfig:
    """Settings of a table of images; whatever is None is found by its values, and shown before anything trains.

    Attributes:
        path_column: The column that names images.
        split_column: The column of the words for training and test images; "-" for none.
        group_column: The column whose values, such as patients, must not be in two parts of a split; "-" for none.
        class_map: A file with the names of labels: JSON, a table of two columns, or a name a line.
        test_table: Another table of the same form for the test images.
        unclear_labels: What to do with rows without label, with several labels, and with rows that disagree about an
            image: ``refuse``; ``skip`` leaves them out; ``majority`` takes the most frequent label of an image, and
            leaves out the other rows.
        positive: Where a row has several labels: use this one against all others, as a task of two classes.

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
