"""Reads the data that a figure of a report offers."""

from __future__ import annotations

import csv
import html
import io
import re
from urllib.parse import unquote


def saved_rows(figure) -> list[list[str]]:
    """The rows of the CSV file behind a figure's link."""
    content = unquote(html.unescape(re.search(r'href="data:text/csv;charset=utf-8,(.*?)"', figure.data)[1]))
    return list(csv.reader(io.StringIO(content)))
