"""Show names of unknown origin without obeying them: in a terminal, in Markdown, in XML, in a spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters (a terminal obeys them), separators of lines and paragraphs, marks that reverse the direction of
# the text after them, and halves of characters, which cannot be written at all.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# A spreadsheet takes a cell that begins with one of them for a formula; some programs accept the full-width forms too.
_FORMULA = tuple("=+-@＝＋－＠")


def printable(text: str) -> str:
    r"""Return a text in which each character that would control a terminal, instead of being shown, is an escape code.

    Bytes of a file name that are not UTF-8 are replaced too.

    Example:
        >>> import os
        >>> printable("cat\x1b[2J \u202egod"), printable(os.fsdecode(b"caf\xe9.png"))
        ('cat\\x1b[2J \\u202egod', 'caf\\xe9.png')
    """
    return _OBEYED.sub(lambda match: _code(ord(match[0])), text)


def _code(number: int) -> str:
    number -= 0xDC00 if 0xDC80 <= number <= 0xDCFF else 0  # Python's surrogate of a byte that is not UTF-8
    return chr(number).encode("unicode_escape").decode("ascii")


def csv_row(cells: Iterable[object]) -> list[object]:
    """Return the cells of a row of a CSV file: printable, with an apostrophe before each text that would be a formula.

    Numbers, also those that are already formatted as text, stay as they are.

    Example:
        >>> csv_row(["=1+1", -0.5, "-0.5", "@cat", "cat"])
        ["'=1+1", -0.5, '-0.5', "'@cat", 'cat']
    """
    return [_text_cell(printable(cell)) if isinstance(cell, str) else cell for cell in cells]


def _text_cell(cell: str) -> str:
    if not cell.startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell if cell.isascii() and cell == cell.strip() else f"'{cell}"
