"""The words by which people name training, validation and test images, in folders and in tables."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["train", "val", "test"]

SPLIT_WORDS: dict[str, Role] = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validationset", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "tst", "eval", "evaluation"), "test"),
}


def split_role(name: str) -> Role | None:
    """Return which part of the data a name means; None if it is no word for one.

    Case, digits and punctuation are ignored.

    Example:
        >>> split_role("Training"), split_role("valid"), split_role("test2017"), split_role("crow")
        ('train', 'val', 'test', None)
    """
    return SPLIT_WORDS.get(re.sub(r"[\W\d_]+", "", name.lower()))


def split_role_and_rest(name: str) -> tuple[Role, str] | None:
    """Return the part that one word of a name means, and the name without that word.

    None if no word of the name means a part, or several do.

    Example:
        >>> split_role_and_rest("seg_train"), split_role_and_rest("test_images")
        (('train', 'seg'), ('test', 'images'))
    """
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    roles = [role for word in words if (role := split_role(word))]
    if len(roles) != 1:
        return None
    return roles[0], "_".join(word for word in words if not split_role(word))
