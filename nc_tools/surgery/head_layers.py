"""The kinds of layers that can be a head, and their widths."""

from __future__ import annotations

from torch import nn

from nc_tools.heads.head import Head


def could_be_head(module: nn.Module) -> bool:
    """Return True if a module is a linear layer, a 1 x 1 convolution, or a head of nc_tools."""
    return isinstance(module, nn.Linear | Head) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def output_width(module: nn.Module) -> int:
    """Return the number of scores that a layer which could be a head returns for each sample."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.num_classes if isinstance(module, Head) else int(module.out_channels)  # type: ignore[arg-type]


def input_width(module: nn.Module) -> int:
    """Return the width of the features that a layer which could be a head takes."""
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.feature_dim if isinstance(module, Head) else int(module.in_channels)  # type: ignore[arg-type]
