"""Update the number of classes that a model stores outside its head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

_NAMES = ("num_classes", "num_labels")


def set_num_classes(model: nn.Module, name: str, old: int, new: int) -> Callable[[], None]:
    """Set ``num_classes`` and the like in the modules that contain the head; return a function that undoes it.

    Changes timm's ``num_classes`` and Hugging Face's ``num_labels`` and ``config.num_labels`` (which its losses and
    saved models use) if they are equal to ``old``. A configuration for regression becomes one for classification.

    Args:
        model: The model.
        name: The dotted path of its head.
        old: The current number of classes.
        new: The new number of classes.
    """
    if old == new:
        return lambda: None
    changes: list[tuple[Any, str, Any]] = []  # owner, attribute, old value

    def undo() -> None:
        for owner, attribute, value in reversed(changes):
            setattr(owner, attribute, value)

    try:
        for owner, attribute, value in _settings(model, name, old, new):
            before = getattr(owner, attribute)
            setattr(owner, attribute, value)
            changes.append((owner, attribute, before))
    except BaseException:
        undo()
        raise
    return undo


def _settings(model: nn.Module, name: str, old: int, new: int) -> Iterator[tuple[Any, str, Any]]:
    """Yield owner, attribute and new value of each setting that holds the number of classes, in the order to set."""
    for module in _ancestors(model, name):
        yield from ((module, attribute, new) for attribute in _NAMES if getattr(module, attribute, None) == old)
        config = getattr(module, "config", None)
        if getattr(config, "num_labels", None) == old:
            # Setting num_labels also replaces the label names: set to what they are, they are restored with the rest.
            names = [key for key in ("id2label", "label2id") if hasattr(config, key)]
            yield from ((config, key, getattr(config, key)) for key in names)
            yield config, "num_labels", new
            if old == 1 and getattr(config, "problem_type", None) == "regression":
                yield config, "problem_type", None


def _ancestors(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the modules that contain the head, from the model down."""
    yield model
    for part in name.split(".")[:-1]:
        model = model.get_submodule(part)
        yield model
