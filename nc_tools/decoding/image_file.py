"""Decode image files of any format to square uint8 images, all by the same rule.

The EXIF orientation is applied. Transparent images are composited on white. 16-bit gray is divided by 257. Images of
32-bit integers or floats raise an error, because the file does not say which value is white. Of an animation the first
frame is used. The shorter side is resized with antialiasing (bilinear), and the center is cropped. Gray files become
RGB, unless one channel is requested.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

DECODE_RULE = 2
"""Increase this number when the rule above changes, so that cached pixels are decoded again."""

FileInterpolation: TypeAlias = Literal["bilinear", "bicubic"]
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# What Pillow's decoders raise on damaged files.
DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class UnreadableImageError(ValueError):
    """An image file, or several, cannot be decoded.

    Attributes:
        reasons: The reason by file, where there are several; the message names only the first ones.
    """

    reasons: Mapping[str, str] = MappingProxyType({})


class Decoded(NamedTuple):
    """One decoded image.

    Attributes:
        pixels: (C, H, W), uint8.
        converted: The form that was converted, such as "gray"; "" if the file had the form that was asked for.
    """

    pixels: np.ndarray
    converted: str


def decode_image(
    path: Path, image_size: int, channels: int, interpolation: FileInterpolation = "bilinear"
) -> np.ndarray:
    """Decode one image file to a square uint8 image: the pixels of :func:`decode_file`."""
    return decode_file(path, image_size, channels, interpolation).pixels


def decode_file(
    file: Path | BinaryIO, image_size: int, channels: int, interpolation: FileInterpolation = "bilinear"
) -> Decoded:
    """Decode one image file to a square uint8 image.

    Args:
        file: Path of an image file, or the file itself, open for reading bytes.
        image_size: Side of the result in pixels.
        channels: 3 for RGB or 1 for gray.
        interpolation: Of the resizing, which is antialiased either way.

    Returns:
        The pixels (C, image_size, image_size), uint8, and the form that was converted.

    Raises:
        UnreadableImageError: If the file is damaged, or its format or range of values is unknown.
    """
    suffix = file.suffix.lower() if isinstance(file, Path) else ""
    try:
        with Image.open(file, formats=_formats(suffix)) as opened:
            # Large JPEG files are decoded at a fraction of their size, at least twice the target.
            opened.draft(None, (2 * image_size, 2 * image_size))
            image, converted = _as_mode(opened, "RGB" if channels == 3 else "L")
        side = min(image.size)
        if image.size != (image_size, image_size):
            # The same as resizing the image and cropping, without resizing the pixels that are cropped away.
            left, top = (image.width - side) / 2, (image.height - side) / 2
            image = image.resize(
                (image_size, image_size), _RESAMPLING[interpolation], box=(left, top, left + side, top + side)
            )
    except DAMAGE as error:
        raise UnreadableImageError(f"{file}: {str(error) or type(error).__name__}") from error
    pixels = np.asarray(image)
    return Decoded(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1), converted)


_FORMS = {"1": "bilevel", "L": "gray", "P": "palette", "RGB": "color", "CMYK": "CMYK", "YCbCr": "YCbCr"}
TRANSPARENT, DEEP, DARK = "transparent", "16-bit", "16-bit and nearly black"


def _as_mode(file: Image.Image, mode: str) -> tuple[Image.Image, str]:
    """Return the image in the given mode, and its former form if it was converted."""
    image = ImageOps.exif_transpose(file)
    converted = "" if image.mode == mode else _FORMS.get(image.mode, image.mode)
    if image.mode.startswith("I;16") or (image.mode == "I" and file.format == "PNG"):
        values = np.asarray(image).astype(np.int64)
        converted = DARK if int(values.max(initial=0)) < 2**13 else DEEP
        image = Image.fromarray((values // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"a 32-bit image (mode {image.mode}) has no defined range of values: convert it to 8 or 16 bits"
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        converted = TRANSPARENT
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode), converted


def damage_text(error: BaseException | None) -> str:
    """Return a few words that say why an image cannot be decoded, without the path that some messages repeat.

    Example:
        >>> damage_text(FileNotFoundError(2, "No such file or directory", "/a/b.png"))
        'No such file or directory'
    """
    if isinstance(error, UnidentifiedImageError):
        return "no image"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@cache
def image_suffixes() -> frozenset[str]:
    """Return the file suffixes that Pillow can decode without other programs, in lower case and with their dot."""
    formats = _own_formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


@cache
def _formats(suffix: str) -> tuple[str, ...]:
    """Return the formats to try on a file, that of its suffix first: decoding then takes a third of the time."""
    first = Image.registered_extensions().get(suffix)
    return tuple(sorted(_own_formats(), key=lambda name: (name != first, name)))


@cache
def _own_formats() -> frozenset[str]:
    Image.init()
    return frozenset(Image.OPEN) - {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # they need other programs
