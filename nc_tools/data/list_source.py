"""List the image files of any data source that is on disk, before any of them is decoded."""

from __future__ import annotations

from pathlib import Path

from nc_tools.data.data_config import DataConfig
from nc_tools.data.folder import list_folder
from nc_tools.data.listing import ListedImages
from nc_tools.data.source_names import SourceName
from nc_tools.data.table_name import parse_table_name
from nc_tools.data.table_source import list_table


def list_source(source: SourceName, config: DataConfig) -> ListedImages:
    """List the files of a data source, with their classes and their split.

    Args:
        source: Where the images are; none of the sources that are read without files, such as "digits".
        config: Its settings for reading sources are used, such as ``class_folder``.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If it is not clear what the classes are.
    """
    path = source.path or Path()
    if source.kind == "table":
        return list_table(parse_table_name(str(path)), config.table, skip_missing=config.skip_missing)
    return list_folder(path, config.class_folder, skip_missing=config.skip_missing)
