"""A figure of a report with the data that it shows, as a link that saves them as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nc_tools._support.printable import csv_row, printable
from nc_tools.plots import svg
from nc_tools.plots.panel_frame import Frame

_LONGEST_NAME = 60
# Commas and the like need no escape in a data address, and most of a table is numbers and commas: urllib's quote, which
# goes through every byte in Python, takes most of the time of a report of a thousand runs.
_ESCAPED = re.compile(r"[^A-Za-z0-9,.:;/=\-_()+*!~']")


@dataclass(frozen=True)
class DataFigure:
    """A titled picture, a caption of numbers beneath it, and the link that saves its data."""

    title: str
    drawing: Markup
    caption: str
    data: Markup


def small_figure(
    title: str, about: str, caption: str, frame: Frame, parts: Sequence[Markup], data: Markup
) -> DataFigure:
    """Return one panel of a row of small figures; its picture is described by title, ``about`` and caption."""
    return DataFigure(title, svg.picture(frame.width, frame.height, f"{title}{about}; {caption}", parts), caption, data)


def csv_link(name: str, rows: Iterable[Sequence[object]]) -> Markup:
    """Return a link that saves rows as a CSV file; the file is in the link itself, so it needs no script.

    Args:
        name: Name of the file in words, without its ending; characters that a file name may not have are replaced.
        rows: The header and the rows.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(csv_row(row) for row in rows)
    text = out.getvalue().encode("utf-8", "replace").decode("latin-1")  # one character for each byte
    content = _ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", text)
    file = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:_LONGEST_NAME] or "figure"
    return Markup(
        '<a class="save" download="{}.csv" aria-label="CSV of {}" href="data:text/csv;charset=utf-8,{}">CSV</a>'
    ).format(file, printable(name), content)
