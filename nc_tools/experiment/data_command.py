"""The command ``nc-tools data``: say what a data source is taken for, without training anything."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from nc_tools._support.printable import printable
from nc_tools.data import DataConfig, Sources, UnreadableImageError, load_images, make_subsets
from nc_tools.data.first_lines import first_lines, listing_lines
from nc_tools.data.guess_source import guess_source
from nc_tools.data.list_source import list_source
from nc_tools.data.source_names import BUILTIN_KINDS, parse_source
from nc_tools.data.write_plain import write_plain
from nc_tools.experiment.data_flags import with_reading_flags
from nc_tools.experiment.overrides import parse_setting, put_all

_OPEN = "the images were not opened: add --read to open all of them, which finds damaged files and copies"


def run_data(args: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Say what a data source is taken for; write it in the plain form if that is asked.

    Args:
        args: Parsed arguments of the command.
        say: Called with each line.

    Raises:
        ValueError: If it is not clear what the source is, or images cannot be read; the message says what to do.
        OSError: If a file is missing or cannot be written.
    """
    config = with_reading_flags(DataConfig(guess_source(args.source)), args)
    config = put_all(config, [parse_setting(text.removeprefix("data.")) for text in args.set])
    source = parse_source(config.source)
    if args.read or source.kind in BUILTIN_KINDS:
        sources = _read_all(config, say)
        subsets = make_subsets(sources, config, seed=0)
        for line in first_lines(sources, config, subsets, sources.train.labels):
            say(printable(line))
    if source.kind in BUILTIN_KINDS:
        if args.write is not None:
            raise ValueError(f"the source {config.source} has no files to copy: --write needs a folder or a table")
        return
    if args.read and args.write is None:
        return
    listed = list_source(source, class_folder=config.class_folder, table=config.table, skip_missing=config.skip_missing)
    if not args.read:
        for line in (*listing_lines(config.source, listed), _OPEN):
            say(printable(line))
    if args.write is not None:
        for line in write_plain(listed, args.write):
            say(line)


def _read_all(config: DataConfig, say: Callable[[str], None]) -> Sources:
    """Load the images of a source; if some cannot be read, say each of them in a line of its own."""
    try:
        return load_images(config)
    except UnreadableImageError as error:
        for path, reason in error.reasons.items():
            say(f"cannot be read: {path} ({reason})")
        raise
