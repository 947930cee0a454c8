"""List the image files of any data source that is on disk, before any of them is decoded."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from nc_tools.data.arrow_images import unpack_hf_dataset, unpack_parquet
from nc_tools.data.class_folders import ClassFolder
from nc_tools.data.folder import list_folder
from nc_tools.data.joined_files import JOINS
from nc_tools.data.listing import ListedImages, check_classes, without_untrained
from nc_tools.data.source_names import SourceName
from nc_tools.data.table_config import TableConfig
from nc_tools.data.table_name import TableName, parse_table_name
from nc_tools.data.table_source import list_table
from nc_tools.data.unpack_once import TABLE
from nc_tools.data.webdataset import IMAGE, LABEL, unpack_webdataset


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
        source: Kind and path of the source; not a built-in set such as "digits", which has no image files.
        class_folder: Which folder names the class, as for :func:`list_folder`.
        table: How a table is read; None to find everything by its values.
        skip_missing: Leave out rows without an image and test images of classes without training images, instead of
            stopping.
        check: Require what a comparison needs: two classes, and a test image.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If it is not clear what the classes are.
    """
    path = source.path or Path()
    settings = table or TableConfig()
    if source.kind == "imagefolder":
        return list_folder(path, class_folder, skip_missing=skip_missing, check=check)
    if source.kind == "table":
        return list_table(parse_table_name(str(path)), settings, skip_missing=skip_missing, check=check)
    if source.kind in JOINS:
        listed = without_untrained(JOINS[source.kind](path, skip_missing=skip_missing), skip_missing=skip_missing)
        if check:
            check_classes(listed)
        return listed
    return _list_unpacked(source, settings, skip_missing=skip_missing, check=check)


def _list_unpacked(source: SourceName, settings: TableConfig, *, skip_missing: bool, check: bool) -> ListedImages:
    """List the images inside Parquet files, a Hugging Face dataset or a webdataset, ``PATH`` or ``PATH:COLUMN``."""
    path, column = source.path or Path(), None
    if not path.exists():
        before, colon, name = str(path).rpartition(":")
        path, column = (Path(before), name) if colon and before else (path, None)
    unpack = {"parquet": unpack_parquet, "hf-dataset": unpack_hf_dataset, "webdataset": unpack_webdataset}
    folder = unpack[source.kind](path)
    if source.kind == "webdataset":
        settings = replace(settings, path_column=settings.path_column or IMAGE)
        with (folder / TABLE).open(encoding="utf-8", newline="") as file:
            column = column or (LABEL if LABEL in next(csv.reader(file)) else None)
    listed = list_table(TableName(folder / TABLE, column, folder), settings, skip_missing=skip_missing, check=check)
    sentence = f"{source.kind} {path.name}: unpacked into {folder}"
    choices = {name: text for name, text in listed.reading.choices.items() if name != "table form"}
    return replace(listed, reading=replace(listed.reading.before(sentence), choices={**choices, "table": path.name}))
