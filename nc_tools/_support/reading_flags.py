"""The command-line flags that say how a data source is read, the same for recipes and for ``nc-tools data``."""

from __future__ import annotations

import argparse


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a source is read and what may be left out of it."""
    add = parser.add_argument_group("how the data are read").add_argument
    add("--test-table", metavar="FILE", help="with table:FILE, another table with the test images")
    add("--skip-unreadable", action="store_true", help="leave out image files that cannot be read, instead of stopping")
    add(
        "--skip-missing",
        action="store_true",
        help="leave out rows of a table without an image, images without a label, and test images of classes that are "
        "not trained on, instead of stopping",
    )
    add("--drop-duplicates", action="store_true", help="leave out training images that are test images too")
