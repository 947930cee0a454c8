"""How images are named on a command line: where they come from, and where their labels do."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import NamedTuple

SOURCE_KINDS = ("digits", "imagefolder", "cifar10", "cifar100")
SCRAMBLED = "scrambled"
BLENDED = "blended"


class SourceName(NamedTuple):
    """A parsed source: what kind it is and where it lies (None: the kind's own default place)."""

    kind: str
    path: Path | None

    @property
    def folder(self) -> Path | None:
        """Where an image folder lies; None for every other kind."""
        return self.path if self.kind == "imagefolder" else None


def parse_source(text: str) -> SourceName:
    r"""Split ``KIND[:PATH]`` at the first colon, so that ``imagefolder:C:\\data`` keeps its drive letter.

    Example:
        >>> parse_source("digits")
        SourceName(kind='digits', path=None)
        >>> parse_source("imagefolder:birds").path.name
        'birds'

    Raises:
        ValueError: If the kind is unknown, or a path is missing or not wanted.
    """
    kind, colon, path = text.partition(":")
    if kind not in SOURCE_KINDS:
        near = difflib.get_close_matches(kind, SOURCE_KINDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; a folder of images is imagefolder:PATH"
        raise ValueError(f"a data source must be one of {', '.join(SOURCE_KINDS)}, got {text!r}{hint}")
    if kind == "imagefolder" and not path:
        raise ValueError("an image folder needs its path, as in imagefolder:PATH, and none was given")
    if kind == "digits" and colon:
        raise ValueError(f"the embedded digits have no path, got {text!r}: say digits alone")
    return SourceName(kind, Path(path).expanduser() if path else None)


def parse_ood_source(text: str) -> SourceName:
    """Parse a source of images of no class: as :func:`parse_source`, or ``scrambled``.

    Example:
        >>> parse_ood_source("scrambled").kind
        'scrambled'

    Raises:
        ValueError: If it is neither.
    """
    return _parse_or(SCRAMBLED, text, "an out-of-distribution source")


def parse_outlier_source(text: str) -> SourceName:
    """Parse a source of images to train against: as :func:`parse_source`, or ``blended``.

    Example:
        >>> parse_outlier_source("blended").kind
        'blended'

    Raises:
        ValueError: If it is neither.
    """
    return _parse_or(BLENDED, text, "a source of outliers to train against")


def _parse_or(made: str, text: str, what: str) -> SourceName:
    """Parse a source of images, or the name of images that are made from those of the classes."""
    if text == made:
        return SourceName(made, None)
    if difflib.get_close_matches(text, [SCRAMBLED, BLENDED], n=1):
        raise ValueError(f"{what} must be a data source or {made}, got {text!r}")
    return parse_source(text)


def same_images(one: SourceName, other: SourceName) -> bool:
    """Tell whether two sources name one set: the same kind and, for folders, the same place.

    Example:
        >>> same_images(parse_source("imagefolder:birds"), parse_source("imagefolder:./cats/../birds"))
        True
    """
    places = [source.folder.resolve() if source.folder else None for source in (one, other)]
    return one.kind == other.kind and places[0] == places[1]


def parse_labels(text: str) -> tuple[Path, str]:
    r"""Split ``FILE:COLUMN`` at the last colon, so that ``C:\\labels.csv:worse`` keeps its drive letter.

    Example:
        >>> parse_labels("labels.csv:worse")[1]
        'worse'

    Raises:
        ValueError: If file or column is missing.
    """
    file, _, column = text.rpartition(":")
    if not file or not column or "/" in column or "\\" in column:
        raise ValueError(f"labels must be given as FILE:COLUMN, as in labels.csv:worse, got {text!r}")
    return Path(file).expanduser(), column
