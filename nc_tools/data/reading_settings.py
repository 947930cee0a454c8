"""Check settings of how a source is read: those that would change nothing for this source are an error."""

from __future__ import annotations

from collections.abc import Iterable

from nc_tools.data.class_folders import ClassFolder
from nc_tools.data.source_names import TABLE_KINDS, parse_source
from nc_tools.data.table_config import TableConfig


def check_reading_settings(
    table: TableConfig, class_folder: ClassFolder | None, source: str, others: Iterable[str | None]
) -> None:
    """Check that settings of a table come with a table as the source, and ``class_folder`` with an image folder.

    Args:
        table: How a table is read.
        class_folder: Which folder names the class.
        source: The source of the training images. Embeddings pass, because all such settings are refused elsewhere.
        others: Further sources, to which ``class_folder`` applies too.

    Raises:
        ValueError: If a setting would change nothing.
    """
    plain, kind = TableConfig(), parse_source(source).kind
    if table != plain and kind not in (*TABLE_KINDS, "embeddings"):
        names = [f"table.{name}" for name in vars(plain) if getattr(table, name) != getattr(plain, name)]
        raise ValueError(
            f"{', '.join(names)} says how a table is read, and the source {source} is none: leave it out, or give "
            f"table:FILE as the source"
        )
    kinds = {(text or "").partition(":")[0] for text in (source, *others)}
    if class_folder is not None and not kinds & {"imagefolder", "embeddings"}:
        raise ValueError(
            f"class_folder={class_folder} says which folder of an image is its class, and no source here is a folder, "
            f"got {source}: leave it out"
        )
