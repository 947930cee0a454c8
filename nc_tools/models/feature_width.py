"""The width of a backbone's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nc_tools._support.out_of_memory import is_out_of_memory
from nc_tools.surgery.trace import FAILS_ON_A_WRONG_INPUT
from nc_tools.surgery.untouched import trial_run


def feature_width(backbone: nn.Module, *, in_channels: int, image_size: int, name: str | None = None) -> int:
    """Return the width of a backbone's features, found by one forward pass on zeros.

    Attributes such as ``num_features`` are not used, because they are wrong for some models.

    Args:
        backbone: Images to features.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
        name: Name of the backbone in error messages; None for that of its class.

    Raises:
        ValueError: If the output is not (N, D), or the backbone does not accept images of this size.

    Example:
        >>> feature_width(nn.Flatten(), in_channels=1, image_size=8)
        64
    """
    name = name or type(backbone).__name__
    parameter = next(backbone.parameters(), None)
    device = None if parameter is None else parameter.device
    try:
        with trial_run(backbone):
            features = backbone(torch.zeros(2, in_channels, image_size, image_size, device=device))
    except FAILS_ON_A_WRONG_INPUT as error:
        if is_out_of_memory(error):  # of any size
            raise
        raise wrong_size(name, in_channels, image_size, error) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError(
            f"a backbone must map images to features (N, D), but {name} returned "
            f"{tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__}"
        )
    return features.shape[1]


def wrong_size(name: str, channels: int, size: int, error: Exception) -> ValueError:
    """Return the error for a backbone that does not accept images of this size."""
    return ValueError(
        f"{name} does not accept {channels} x {size} x {size} images ({error}): choose another --image-size or --model"
    )
