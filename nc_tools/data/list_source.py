"""List the image files of any data source that is on disk, before any of them is decoded."""

from __future__ import annotations

from pathlib import Path

from nc_tools.data.class_folders import ClassFolder
from nc_tools.data.folder import list_folder
from nc_tools.data.listing import ListedImages
from nc_tools.data.source_names import SourceName
from nc_tools.data.table_config import TableConfig
from nc_tools.data.table_name import parse_table_name
from nc_tools.data.table_source import list_table


def list_source(
    source: SourceName,
    *,
    class_folder: ClassFolder | None = None,
    table: TableConfig | None = None,
    skip_missing: bool = False,
    check: bool = True,
) -> ListedImages:
    """List the files of a data source, with their classes and their split.

    Args:
        source: Where the images are; none of the sources that are read without files, such as "digits".
        class_folder: Which folder names the class, as for :func:`list_folder`.
        table: How a table is read; None to find everything by its values.
        skip_missing: Leave out what has no counterpart, instead of stopping.
        check: Require what a comparison needs, such as a test image.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If it is not clear what the classes are.
    """
    path = source.path or Path()
    if source.kind == "table":
        return list_table(parse_table_name(str(path)), table or TableConfig(), skip_missing=skip_missing, check=check)
    return list_folder(path, class_folder, skip_missing=skip_missing, check=check)
