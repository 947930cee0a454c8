"""Small pictures inside an HTML page, so that the page needs no other file."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray


def picture_url(pixels: NDArray[np.uint8]) -> str:
    """Return an image as a data URL of a JPEG file.

    Args:
        pixels: (C, H, W), uint8, with 1 or 3 channels.

    Example:
        >>> picture_url(np.zeros((3, 8, 8), np.uint8))[:23]
        'data:image/jpeg;base64,'
    """
    from PIL import Image

    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
