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

    def change(owner: Any, attribute: str, value: Any) -> None:
        changes.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, value)

    for module in _ancestors(model, name):
        for attribute in _NAMES:
            if getattr(module, attribute, None) == old:
                change(module, attribute, new)
        config = getattr(module, "config", None)
        if getattr(config, "num_labels", None) == old:
            # Setting num_labels also replaces the label names, which setting it back would not restore.
            label_names = [key for key in ("id2label", "label2id") if hasattr(config, key)]
            changes += [(config, key, getattr(config, key)) for key in label_names]
            change(config, "num_labels", new)
            if old == 1 and getattr(config, "problem_type", None) == "regression":
                change(config, "problem_type", None)

    def undo() -> None:
        for owner, attribute, value in reversed(changes):
            setattr(owner, attribute, value)

    return undo


def _ancestors(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the modules that contain the head, from the model down."""
    yield model
    for part in name.split(".")[:-1]:
        model = model.get_submodule(part)
        yield model
