"""The summary table of a comparison for a paper: LaTeX with the package booktabs."""

from __future__ import annotations

from nc_tools._support.printable import printable
from nc_tools.comparison.headline import headline
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import summary_columns, summary_rows

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "–": "--",
    "−": r"$-$",
}
_MARKS = {"better": "▲ ", "worse": "▼ "}


def latex_table(comparison: Comparison) -> str:
    """Return the summary table as a LaTeX ``table`` with its caption; it needs ``booktabs`` and ``amssymb``."""
    columns = summary_columns(comparison)
    lines = [
        "% \\usepackage{booktabs,amssymb}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escaped(headline(comparison))}}}",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        _row("arm", *(column.heading for column in columns)),
        "\\midrule",
        *(_row(f"{_MARKS.get(row.verdict, '')}{row.arm}", *row.cells) for row in summary_rows(comparison)),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return " & ".join(map(_escaped, cells)) + " \\\\"


def _escaped(text: str) -> str:
    """Escape what LaTeX would read as markup, such as the underscore in the name of an arm.

    A hyphen before a number becomes a minus sign.
    """
    words = printable(" ".join(text.split()))
    parts = []
    for place, char in enumerate(words):
        minus = char == "-" and words[place + 1 : place + 2].isdigit() and (place == 0 or words[place - 1] in " [")
        parts.append("$-$" if minus else _ESCAPES.get(char, char))
    return "".join(parts)
