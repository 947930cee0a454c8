"""The command ``nc-tools data``: say how a data source is understood, without training anything."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from nc_tools._support.printable import printable
from nc_tools.data import DataConfig, Sources, UnreadableImageError, load_data, make_subsets
from nc_tools.data.first_lines import first_lines, listing_lines
from nc_tools.data.guess_source import guess_source
from nc_tools.data.list_source import list_source
from nc_tools.data.source_names import BUILTIN_KINDS, parse_source
from nc_tools.data.write_plain import write_plain
from nc_tools.experiment.data_flags import with_reading_flags
from nc_tools.experiment.overrides import parse_setting, put_all

_OF_THE_SOURCE = ("source", "table", "class_folder", "skip_missing")
_OF_FILES = ("skip_unreadable", "drop_duplicates", "memory_gb")
_OF_TRAINING = ("noise", "sampling", "crop_padding", "flip", "rand_augment", "color_jitter", "cutout", "views")
_OPEN = "the images were not opened: add --read to open all of them, which finds damaged files and copies"


def run_data(args: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Say how a data source is understood; with ``--write``, also copy it in the plain form.

    Args:
        args: Parsed arguments of the command.
        say: Called with each line.

    Raises:
        ValueError: If it is not clear what the source is, or images cannot be read; the message says what to do.
        OSError: If a file is missing or cannot be written.
    """
    if Path(args.source).suffix.lower() in (".npz", ".safetensors") or args.source.startswith("embeddings:"):
        raise ValueError(f"{args.source} is a file of features, not of images: nc-tools choose says what it holds")
    config = with_reading_flags(DataConfig(guess_source(args.source)), args)
    config = put_all(config, [parse_setting(text.removeprefix("data.")) for text in args.set])
    source = parse_source(config.source)
    reads = args.read or source.kind in BUILTIN_KINDS
    _refuse_unused_settings(config, reads=reads, writes=args.write is not None)
    sources = _read_all(config, say) if reads else None
    if source.kind in BUILTIN_KINDS and args.write is not None:
        raise ValueError(f"the source {config.source} has no files to copy: --write needs a folder or a table")
    if sources is not None and args.write is None:
        return
    listed = list_source(source, class_folder=config.class_folder, table=config.table, skip_missing=config.skip_missing)
    if sources is None:
        for line in (*listing_lines(config.source, listed), _OPEN):
            say(printable(line))
    else:
        read = {*(sources.train.paths or ()), *(sources.test.paths or ())}
        listed = listed.without(set(listed.all_images.paths) - read)
    if args.write is not None:
        for line in write_plain(listed, args.write):
            say(line)


def _refuse_unused_settings(config: DataConfig, *, reads: bool, writes: bool) -> None:
    """Check that every setting has an effect on what the command does.

    Raises:
        ValueError: If one would change nothing; the message names it and says what to do.
    """
    plain = DataConfig(config.source)
    changed = [name for name in vars(plain) if getattr(config, name) != getattr(plain, name)]
    if names := [name for name in changed if name in _OF_TRAINING]:
        raise ValueError(f"{_named(names)} is about training, and nothing is trained here: leave it out")
    if writes and (names := [name for name in changed if name not in (*_OF_THE_SOURCE, *_OF_FILES)]):
        raise ValueError(
            f"--write copies all images with the labels of their source, where {_named(names)} would change nothing: "
            f"leave it out, or leave --write out"
        )
    if not reads and (names := [name for name in changed if name not in _OF_THE_SOURCE]):
        raise ValueError(f"{_named(names)} has an effect only if the images are opened: add --read")


def _named(names: list[str]) -> str:
    return ", ".join(f"data.{name}" for name in names)


def _read_all(config: DataConfig, say: Callable[[str], None]) -> Sources:
    """Load the images of a source and say what they are; if some cannot be read, say each of them in a line."""
    try:
        sources = load_data(config)
    except UnreadableImageError as error:
        for path, reason in error.reasons.items():
            say(f"cannot be read: {path} ({reason})")
        raise
    given = sources.train.labels if sources.given_labels is None else sources.given_labels
    for line in first_lines(sources, config, make_subsets(sources, config, 0, given), given):
        say(printable(line))
    return sources
