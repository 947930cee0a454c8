"""Make up an input for a model that came without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head
from nc_tools.surgery.head_layers import input_width

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]

_SIDES = (224, 32, 299, 64, 28, 8)
_TOKENS = 5


def example_inputs(model: nn.Module) -> Iterator[Example]:
    """Yield inputs that a model may take, likeliest first.

    What the model says of itself comes before guesses: timm's ``default_cfg`` and Hugging Face's ``config`` know the
    size of the images, and ``main_input_name`` whether images are wanted at all. Then zeros of a shape that the first
    layer takes: images where there is a convolution, else rows.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if like is None:
        return
    if getattr(model, "main_input_name", None) == "input_ids":
        yield from _token_ids(model, like.device)
    for shape in [*_declared_shapes(model), *_guessed_shapes(model)]:
        yield torch.zeros(shape, device=like.device, dtype=like.dtype)


def _token_ids(model: nn.Module, device: torch.device) -> Iterator[Example]:
    """Yield one row of token ids, all different, none of them padding; some models want it to end with its end token.

    One row alone: language models without a padding token take no more.
    """
    config = getattr(model, "config", None)
    special = [getattr(config, name, None) for name in ("pad_token_id", "eos_token_id")]
    ids = [i for i in range(3, 3 + _TOKENS + len(special)) if i not in special][:_TOKENS]
    if isinstance(end := special[1], int) and end < getattr(config, "vocab_size", end):
        ids[-1] = end
    yield {"input_ids": torch.tensor([ids], device=device)}


def _declared_shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    known = getattr(model, "default_cfg", None)
    if isinstance(known, Mapping) and known.get("input_size"):
        yield (2, *known["input_size"])
    config = getattr(model, "config", None)
    for part in (config, getattr(config, "vision_config", None)):
        size = getattr(part, "image_size", None)
        if size:
            height, width = (size, size) if isinstance(size, int) else size
            yield 2, getattr(part, "num_channels", 3), height, width


def _guessed_shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            yield from ((2, module.in_channels, side, side) for side in _SIDES)
            break
    for module in model.modules():
        if isinstance(module, nn.Linear | Head):
            yield 2, input_width(module)
            break
