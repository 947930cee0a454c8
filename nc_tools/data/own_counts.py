"""The check of class counts that the user has chosen."""

from __future__ import annotations

from collections.abc import Sequence


def check_own_counts(class_counts: Sequence[int]) -> None:
    """Check class counts that the user has chosen: whole numbers of at least 1, for at least two classes.

    Raises:
        ValueError: If there are fewer than two, or one of them is not a positive whole number.
    """
    if len(class_counts) < 2:
        raise ValueError(f"class_counts must have a number for each of at least 2 classes, got {tuple(class_counts)}")
    if bad := [count for count in class_counts if isinstance(count, bool) or int(count) != count or count < 1]:
        raise ValueError(
            f"class_counts must hold whole numbers of at least 1, got {bad[0]} at position "
            f"{list(class_counts).index(bad[0])}: use held_out_classes to leave a class out"
        )
