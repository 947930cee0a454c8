"""A request to a decoding process, and the report that it sends beside the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nc_tools.decoding.image_file import FileInterpolation


@dataclass(frozen=True)
class DecodingRequest:
    """Files to decode, all to the same form.

    Attributes:
        root: Folder that the names are relative to.
        names: B paths with forward slashes.
        image_size: Side in pixels.
        channels: 3 or 1.
        interpolation: Of the resizing.
    """

    root: str
    names: Sequence[str]
    image_size: int
    channels: int
    interpolation: FileInterpolation = "bilinear"


@dataclass(frozen=True)
class DecodingReport:
    """What decoding found.

    Attributes:
        unreadable: The reason for each file that cannot be decoded, by its name.
        converted: How many images had another form, such as "gray", by that form.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    converted: dict[str, int] = field(default_factory=dict)
