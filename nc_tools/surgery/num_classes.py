"""The number of classes that a model keeps beside its head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

_NAMES = ("num_classes", "num_labels")


def set_num_classes(model: nn.Module, name: str, old: int, new: int) -> Callable[[], None]:
    """Tell the modules above a head of its new number of classes; return what takes that back.

    timm's ``num_classes``, Hugging Face's ``num_labels`` and ``config.num_labels`` (its losses and saved models read
    that): each is changed where it said ``old``. A config that meant one regressed number means classes from then on.

    Args:
        model: The model.
        name: Dotted path of its head.
        old: The number of classes until now.
        new: The number from now on.
    """
    if old == new:
        return lambda: None
    undo: list[tuple[Any, str, Any]] = []

    def change(owner: Any, attribute: str, value: Any) -> None:
        undo.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, value)

    for module in _above(model, name):
        for attribute in _NAMES:
            if getattr(module, attribute, None) == old:
                change(module, attribute, new)
        config = getattr(module, "config", None)
        if getattr(config, "num_labels", None) == old:
            # Setting num_labels writes new names for the labels, which setting it back would not undo.
            undo += [
                (config, kept, getattr(config, kept)) for kept in ("id2label", "label2id") if hasattr(config, kept)
            ]
            change(config, "num_labels", new)
            if old == 1 and getattr(config, "problem_type", None) == "regression":
                change(config, "problem_type", None)

    def take_back() -> None:
        for owner, attribute, value in reversed(undo):
            setattr(owner, attribute, value)

    return take_back


def _above(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the modules that hold a head, from the model down."""
    yield model
    for part in name.split(".")[:-1]:
        model = model.get_submodule(part)
        yield model
