"""Example inputs made of zeros, to run a model once when the shape of its input is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]

_SIDES = (224, 32, 299, 64, 28, 8)
_TOKENS = 5


def example_inputs(model: nn.Module) -> Iterator[Example]:
    """Yield inputs that the model may accept, the most likely first.

    First the shapes in the model's own configuration: the image size in timm's ``default_cfg`` or Hugging Face's
    ``config``, and token ids if ``main_input_name`` asks for them. Then zeros that fit the first layer: images for a
    convolution, rows for a linear layer.
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None:
        return
    if getattr(model, "main_input_name", None) == "input_ids":
        yield from _token_ids(model, parameter.device)
    for shape in [*_configured_shapes(model), *_guessed_shapes(model)]:
        yield torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)


def _token_ids(model: nn.Module, device: torch.device) -> Iterator[Example]:
    """Yield one row of distinct token ids without padding; the last is the end token, which some models need.

    Only one row, because language models without a padding token accept no more.
    """
    config = getattr(model, "config", None)
    special = [getattr(config, name, None) for name in ("pad_token_id", "eos_token_id")]
    ids = [i for i in range(3, 3 + _TOKENS + len(special)) if i not in special][:_TOKENS]
    if isinstance(end := special[1], int) and end < getattr(config, "vocab_size", end):
        ids[-1] = end
    yield {"input_ids": torch.tensor([ids], device=device)}


def _configured_shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    timm_config = getattr(model, "default_cfg", None)
    if isinstance(timm_config, Mapping) and timm_config.get("input_size"):
        yield (2, *timm_config["input_size"])
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
            yield 2, module.in_features if isinstance(module, nn.Linear) else module.feature_dim
            break
