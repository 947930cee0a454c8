"""Parse the names of data sources and label files, as they are written on a command line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import NamedTuple

from nc_tools._support.suggestions import did_you_mean

BUILTIN_KINDS = ("digits", "cifar10", "cifar100")
"""Benchmarks that are read without files of the user's own."""
SOURCE_KINDS = (
    *BUILTIN_KINDS, "imagefolder", "table", "cub", "pets", "tiny-imagenet", "parquet", "hf-dataset", "webdataset",
    "embeddings",
)  # fmt: skip
TABLE_KINDS = ("table", "parquet", "hf-dataset", "webdataset")
"""Sources with a table of images and labels, to which the settings of a table (``TableConfig``) apply."""
SCRAMBLED = "scrambled"
OWN_LABELS = "data"
"""Value of ``clean`` that says that the labels of the source itself are the true ones."""
BLENDED = "blended"


class SourceName(NamedTuple):
    """A parsed source: its kind and its path (None: the default place of that kind)."""

    kind: str
    path: Path | None


def parse_source(text: str) -> SourceName:
    r"""Split ``KIND[:PATH]`` at the first colon, so that ``imagefolder:C:\data`` keeps its drive letter.

    Example:
        >>> parse_source("digits")
        SourceName(kind='digits', path=None)
        >>> parse_source("imagefolder:birds").path.name
        'birds'

    Raises:
        ValueError: If the kind is unknown, its path is missing, or there is a path for "digits".
    """
    kind, colon, path = text.partition(":")
    if kind not in SOURCE_KINDS:
        raise ValueError(
            f"a data source must be an existing folder or table, or 'imagefolder:PATH', 'table:FILE' or another of "
            f"{', '.join(SOURCE_KINDS)}, got {text!r}{_hint(kind)}"
        )
    if kind not in BUILTIN_KINDS and not path:
        raise ValueError(f"the source {kind!r} needs its path, as in '{kind}:PATH', got {text!r}")
    if kind == "digits" and colon:
        raise ValueError(f"the source 'digits' takes no path, got {text!r}: write 'digits'")
    return SourceName(kind, Path(path).expanduser() if path else None)


def is_archive(path: Path) -> bool:
    """Return whether a path has the suffix of an archive, which must be unpacked."""
    return path.suffix.lower() in (".7z", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip")


def _hint(kind: str) -> str:
    if is_archive(Path(kind)):
        return ": unpack the archive, and give its folder; write webdataset:PATH for the shards of a webdataset"
    if difflib.get_close_matches(kind, SOURCE_KINDS, n=1):
        return f"; {did_you_mean(kind, SOURCE_KINDS)}"
    return "; write 'imagefolder:PATH' for a folder of images"


def parse_ood_source(text: str) -> SourceName:
    """Parse the source of an out-of-distribution set: as :func:`parse_source`, or ``scrambled``.

    Example:
        >>> parse_ood_source("scrambled").kind
        'scrambled'

    Raises:
        ValueError: If it is neither.
    """
    return _parse_or(SCRAMBLED, text, "the source of an out-of-distribution set")


def parse_outlier_source(text: str) -> SourceName:
    """Parse the source of outliers to train against: as :func:`parse_source`, or ``blended``.

    Example:
        >>> parse_outlier_source("blended").kind
        'blended'

    Raises:
        ValueError: If it is neither.
    """
    return _parse_or(BLENDED, text, "the source of outliers")


def _parse_or(generated: str, text: str, what: str) -> SourceName:
    """Parse a data source, or the name of images that are generated from those of the classes."""
    if text == generated:
        return SourceName(generated, None)
    if difflib.get_close_matches(text, [SCRAMBLED, BLENDED], n=1):
        raise ValueError(f"{what} must be a data source or {generated!r}, got {text!r}")
    return parse_source(text)


def same_images(one: SourceName, other: SourceName) -> bool:
    """Return True if two sources name the same set: the same kind and, if it has files, the same path.

    Example:
        >>> same_images(parse_source("imagefolder:birds"), parse_source("imagefolder:./cats/../birds"))
        True
    """
    paths = [None if source.path is None else source.path.resolve() for source in (one, other)]
    return one.kind == other.kind and (one.kind in BUILTIN_KINDS or paths[0] == paths[1])


def parse_labels(text: str) -> tuple[Path, str]:
    r"""Split ``FILE:COLUMN`` at the last colon, so that ``C:\labels.csv:worse`` keeps its drive letter.

    Example:
        >>> parse_labels("labels.csv:worse")[1]
        'worse'

    Raises:
        ValueError: If file or column is missing.
    """
    file, _, column = text.rpartition(":")
    if not file or not column or "/" in column or "\\" in column:
        raise ValueError(f"labels must be written as 'FILE:COLUMN', such as 'labels.csv:worse', got {text!r}")
    return Path(file).expanduser(), column
