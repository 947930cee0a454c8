"""Guess the kind of a data source from a path alone."""

from __future__ import annotations

from pathlib import Path

from nc_tools.data.source_names import BUILTIN_KINDS, SOURCE_KINDS

_TABLES = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".lst"})


def guess_source(text: str) -> str:
    """Return a data source as ``KIND:PATH``.

    Text that names a kind already, or whose kind cannot be guessed, is returned unchanged.

    Args:
        text: A source, or the path of a folder or a table, as on a command line.

    Raises:
        ValueError: If the name is that of a built-in data set and also that of a folder.

    Example:
        >>> guess_source("digits"), guess_source("imagefolder:birds")
        ('digits', 'imagefolder:birds')
    """
    path = Path(text).expanduser()
    if text in BUILTIN_KINDS and path.is_dir():
        raise ValueError(
            f"{text!r} is the name of a built-in data set, and of a folder here: write imagefolder:{text} for the "
            "images in the folder, or start the command elsewhere for the built-in set"
        )
    kind, colon, _ = text.partition(":")
    if text in BUILTIN_KINDS or (colon and kind in SOURCE_KINDS):
        return text
    if path.is_dir():
        kind = (
            "hf-dataset"
            if any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
            else "imagefolder"
        )
        return f"{kind}:{text}"
    if path.suffix.lower() == ".parquet" and path.is_file():
        return f"parquet:{text}"
    file = text.partition("@")[0]
    suffixes = {Path(name).suffix.lower() for name in (file, file.rpartition(":")[0])}
    return f"table:{text}" if suffixes & _TABLES else text
