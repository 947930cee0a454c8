"""A figure of a report with the data that it shows, as a link that saves them as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

from nc_tools._support.printable import csv_row


@dataclass(frozen=True)
class DataFigure:
    """A titled picture, a caption of numbers beneath it, and the link that saves its data."""

    title: str
    drawing: Markup
    caption: str
    data: Markup


def csv_link(name: str, rows: Iterable[Sequence[object]]) -> Markup:
    """Return a link that saves rows as a CSV file; the file is in the link itself, so it needs no script.

    Args:
        name: Name of the file.
        rows: The header and the rows.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(csv_row(row) for row in rows)
    # Commas and the like need no escape in a data address, and most of a table is numbers and commas.
    content = quote(out.getvalue().encode("utf-8", "replace"), safe=",.:;/=-_()+*!~'")
    return Markup('<a class="save" download="{}" href="data:text/csv;charset=utf-8,{}">CSV</a>').format(name, content)
