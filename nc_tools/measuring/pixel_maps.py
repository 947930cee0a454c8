"""Maps of a segmentation network as samples: one sample for each pixel of a layer's own map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.heads.pixel_head import PixelHead
from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.layers import Pool, channel_axes, check_layers


def at_pixels(values: Tensor, size: Sequence[int]) -> Tensor:
    """Return what a map (N, H, W) holds at the center of each pixel of a map of another size (N, h, w).

    It is interpolation to the nearest pixel (``nearest-exact``), for integers of any type and size.

    Example:
        >>> at_pixels(torch.arange(6).expand(1, 6, 6), (1, 2))
        tensor([[[1, 4]]])
    """
    rows, columns = (_centers(values.shape[axis + 1], size[axis], values.device) for axis in (0, 1))
    return values.index_select(1, rows).index_select(2, columns)


def _centers(old: int, new: int, device: torch.device) -> Tensor:
    return (2 * torch.arange(new, device=device) + 1) * old // (2 * new)


def map_pools(model: nn.Module, example: Example, layers: Sequence[str]) -> dict[str, Pool]:
    """Return for each layer the function that turns its output into a map (N, H, W, C).

    Raises:
        ValueError: If the model has no such layer.
    """
    check_layers(model, layers)
    axes = channel_axes(model, example, layers) if layers else {}
    return {name: partial(_channels_last, channel_axis=axes.get(name, 1)) for name in layers}


def _channels_last(output: Tensor, channel_axis: int) -> Tensor:
    return output.movedim(channel_axis, -1) if output.ndim == 4 else output


@contextmanager
def returned_by(module: nn.Module) -> Iterator[list[Any]]:
    """Collect what a module returns at each call inside the ``with`` block."""
    outputs: list[Any] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def head_maps(
    head: nn.Module, path: str, inputs: Sequence[Any], outputs: Sequence[Any], labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the features (N, H, W, D) and logits (N, H, W, K) of a head that ran on maps.

    Args:
        head: The head.
        path: Its dotted path, for the message.
        inputs: Its input at each call.
        outputs: Its output at each call.
        labels: Labels of pixels (N, H, W).

    Raises:
        ValueError: If the head did not run exactly once, on a map for each image.
    """
    maps = [part for part in (*inputs, *outputs) if isinstance(part, Tensor) and part.ndim == 4]
    if len(maps) != 2 or len(inputs) != 1 or len(maps[0]) != len(labels):
        got = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in inputs]
        raise ValueError(
            f"labels of pixels {tuple(labels.shape)} need a head that runs once, on a map ({len(labels)}, D, H, W), "
            f"but {path!r} ran on {got or 'nothing'}. Pass the path of the last 1 x 1 convolution, as in "
            f"head='classifier.4', or labels ({len(labels)},) of the images"
        )
    axis = 1 if isinstance(head, nn.Conv2d | PixelHead) else -1
    return maps[0].movedim(axis, -1), maps[1].movedim(axis, -1)


def layer_map(name: str, calls: Sequence[Any], number: int) -> Tensor:
    """Return the map (N, H, W, C) that a layer returned.

    Args:
        name: The layer.
        calls: Its output at each call.
        number: N.

    Raises:
        ValueError: If the layer did not run exactly once, or returned something else.
    """
    if len(calls) != 1 or not isinstance(calls[0], Tensor) or calls[0].ndim != 4 or len(calls[0]) != number:
        got = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in calls]
        raise ValueError(
            f"layer {name!r} must run once and return a map ({number}, C, H, W) to be measured on pixels, got {got}: "
            f"name another layer, or pass a pooling function that gives a row for each pixel of the head's map"
        )
    maps: Tensor = calls[0]
    return maps
