"""The kinds of layers that can be a head, and their widths."""

from __future__ import annotations

from torch import nn

from nc_tools.heads.head import Head
from nc_tools.heads.pixel_head import PixelHead


def could_be_head(module: nn.Module) -> bool:
    """Return True if a module is a linear layer, a 1 x 1 convolution, a head of nc_tools, or a layer of one's own."""
    return (
        isinstance(module, nn.Linear | Head | PixelHead)
        or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
        or is_own_layer(module)
    )


def is_own_layer(module: nn.Module) -> bool:
    """Return True if a module is a layer with a matrix and none of PyTorch's, such as a cosine layer of one's own."""
    return (
        not type(module).__module__.startswith("torch.")
        and not isinstance(module, Head | nn.Linear)
        and not list(module.children())
        and any(parameter is not None and parameter.ndim == 2 for parameter in module._parameters.values())
    )


def output_width(module: nn.Module) -> int | None:
    """Return the number of scores that a layer which could be a head returns; None if the layer does not say."""
    for name in ("num_classes",) if isinstance(module, Head) else ("out_features", "out_channels"):
        if isinstance(width := getattr(module, name, None), int):
            return width
    return None


def input_width(module: nn.Module) -> int | None:
    """Return the width of the features that a layer which could be a head takes; None if the layer does not say."""
    for name in ("feature_dim",) if isinstance(module, Head) else ("in_features", "in_channels"):
        if isinstance(width := getattr(module, name, None), int):
            return width
    return None
