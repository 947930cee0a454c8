"""Saving a Hugging Face model with a swapped head: only if its class builds the head again."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from nc_tools.heads.head import Head


def guard_saving(model: nn.Module, name: str) -> None:
    """Let the Hugging Face models that contain a head be saved only if ``from_pretrained`` will give the head back.

    ``from_pretrained`` builds the model by its class and its configuration. If the class does not build the head, the
    loaded model has a new linear layer with random weights in its place, and only a warning says so. A class that
    swaps the head itself gets its head back, with all of its tensors.

    Args:
        model: The model; changed in place.
        name: The dotted path of its head.
    """
    modeling = sys.modules.get("transformers.modeling_utils")  # a model of transformers has imported it
    path = name.split(".")
    for depth in range(len(path)):
        part = model.get_submodule(".".join(path[:depth]))
        if modeling is not None and isinstance(part, modeling.PreTrainedModel):
            part.save_pretrained = partial(_save_if_restored, part)


def _save_if_restored(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call ``save_pretrained`` of the model's class, with its arguments, if the class builds the model's heads.

    Raises:
        ValueError: If it does not.
    """
    for name, head in _heads_not_built_by_class(model):
        base, kind = type(model).__name__, type(head).__name__
        raise ValueError(
            f"{base}.from_pretrained would put a random nn.Linear in place of {kind} at {name!r}: save the weights "
            f"with torch.save(model.state_dict(), path), or save a model whose class swaps the head itself, as in "
            f"class Model({base}) with def __init__(self, config): super().__init__(config); swap_head(self, {kind}, "
            f"name={name!r})"
        )
    cls: Any = type(model)
    return cls.save_pretrained(model, *args, **kwargs)


def _heads_not_built_by_class(model: nn.Module) -> Iterator[tuple[str, Head]]:
    try:
        with torch.device("meta"):
            fresh = dict(type(model)(copy.deepcopy(model.config)).named_modules())
    except Exception:  # noqa: BLE001 (whatever it is, from_pretrained would fail as well)
        fresh = {}
    for name, head in model.named_modules():
        if isinstance(head, Head) and _sizes(head) != _sizes(fresh.get(name)):
            yield name, head


def _sizes(module: nn.Module | None) -> tuple[Any, ...] | None:
    if module is None:
        return None
    return type(module), {key: value.shape for key, value in module.state_dict().items()}
