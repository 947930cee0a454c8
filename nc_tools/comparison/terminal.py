"""Print a comparison on the terminal: one table if it is wide enough, otherwise two; plain text in a pipe."""

from __future__ import annotations

import textwrap

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from nc_tools._support.printable import printable
from nc_tools.comparison import wording
from nc_tools.comparison.headline import headline
from nc_tools.comparison.label_text import labels_caption
from nc_tools.comparison.ood_tables import outlier_tables
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import Column, TableRow, summary_columns, summary_rows

_TEST_COLUMNS = 4
_LONGEST_ARM = 20
_MOST_CAUTIONS = 3
_MARKS = {"better": "▲", "worse": "▼", "open": " ", "baseline": " ", "none": " "}
_STYLES = {"better": "bold green", "worse": "bold red", "open": "", "baseline": "bold", "none": "dim"}
_ASCII = str.maketrans({"▲": "+", "▼": "-", "↑": "^", "↓": "v", "→": ">", "×": "x", "±": "~", "–": "-"})


def render_terminal(comparison: Comparison, console: Console | None = None, *, details: bool = False) -> None:
    """Print a comparison: the headline, the summary table, and what is missing or doubtful.

    Args:
        comparison: The comparison.
        details: Also print the tests, what they could detect, variances, single models and outlier detection.
        console: The rich console to print to; standard output by default. Colors are used on a terminal only; the
            marks ▲ and ▼ carry the verdict everywhere. An output without Unicode gets ASCII.
    """
    out = _Printer(console or Console(highlight=False))
    experiment = comparison.experiment
    out.blank()
    out.text(experiment.name or "comparison", style="bold")
    if experiment.question:
        out.text(experiment.question)
    out.blank()
    out.text(headline(comparison), style="bold")
    out.blank()
    out.table(summary_columns(comparison), summary_rows(comparison))
    unit = "; differences in percentage points" if comparison.primary.unit else ""
    out.text(
        f"▲ significantly better, ▼ significantly worse than {comparison.baseline} (Holm-adjusted p < .05); "
        f"↑ higher is better, ↓ lower is better{unit}; seeds of the baseline: {wording.seeds_text(comparison)}",
        style="dim",
    )
    out.text(labels_caption(comparison))
    unfinished = wording.unfinished_texts(comparison)
    if unfinished:
        out.section("Unfinished runs", unfinished, style="yellow")
    if comparison.cautions:
        texts = [str(caution) for caution in comparison.cautions]
        kept = texts if details else texts[:_MOST_CAUTIONS]
        more = len(texts) - len(kept)
        out.section("Cautions", [*kept, *([f"and {more} more, in the report"] if more else [])], style="yellow")
    if details:
        _print_details(comparison, out)


def _print_details(comparison: Comparison, out: _Printer) -> None:
    for table in outlier_tables(comparison):
        out.section(f"Out-of-distribution, AUROC: {table.heading}", [])
        columns = tuple(Column(score, "") for score in table.scores)
        out.table(columns, tuple(TableRow(arm, cells, "open") for arm, cells in table.rows))
    out.section("Tests", wording.test_texts(comparison))
    if comparison.controls is not None:
        controls = comparison.controls
        texts = [wording.family_text(controls)]
        for test in controls.tests:
            text = wording.difference_text(test.paired, comparison.primary)
            mark = _MARKS[controls.verdict(test)]
            texts.append(f"{mark} {test.arm} against {test.reference}: {text}, Holm p {wording.p_text(test.p_holm)}")
        out.section("Tests against the reference with the same loss", texts)
    out.section("Detectable difference", [wording.power_heading(comparison), *wording.power_texts(comparison)])
    if comparison.shares:
        out.section("Variance between seeds and frames", [wording.SHARES_HEADING, *wording.share_texts(comparison)])
    out.section("Sign-flip test", [wording.sign_flip_text(comparison)])
    if comparison.disagreements:
        out.section("Single models", [wording.IMAGES_HEADING, *wording.image_texts(comparison)])
    if comparison.notes:
        out.section("Notes", list(comparison.notes))


class _Printer:
    """Prints text without interpreting rich's markup, since names of arms may look like it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._unicode = console.encoding.lower().startswith("utf")

    def blank(self) -> None:
        self._console.print()

    def text(self, text: str, *, style: str = "", indent: str = "") -> None:
        # Wrapped here, since the console leaves spaces at the ends of the lines that it wraps.
        width = max(self._console.width - len(indent), 20)
        for line in textwrap.wrap(printable(" ".join(text.split())), width, break_on_hyphens=False):
            self._console.print(self._styled(indent + line, style), soft_wrap=True)

    def section(self, title: str, texts: list[str], *, style: str = "") -> None:
        self.blank()
        self.text(title, style="bold")
        for text in texts:
            self.text(text, style=style, indent="  ")

    def table(self, columns: tuple[Column, ...], rows: tuple[TableRow, ...]) -> None:
        """Print the summary as one table if it fits, otherwise as two: one for the test, one for other metrics."""
        unbounded = self._console.options.update(width=1000)
        for gap in (1, 0):
            table = self._table(columns, rows, slice(None), gap)
            if Measurement.get(self._console, unbounded, table).maximum <= self._console.width:
                self._console.print(table)
                self.blank()
                return
        parts = [slice(0, _TEST_COLUMNS), slice(_TEST_COLUMNS, None)]
        for part in parts[: 1 + (len(columns) > _TEST_COLUMNS)]:
            self._console.print(self._table(columns, rows, part, 1))
            self.blank()

    def _table(self, columns: tuple[Column, ...], rows: tuple[TableRow, ...], part: slice, gap: int) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD if self._unicode else box.ASCII2,
            pad_edge=False,
            padding=(0, gap, 0, 0),
            show_edge=False,
        )
        table.add_column("  arm", overflow="fold", max_width=_LONGEST_ARM)
        for column in columns[part]:
            table.add_column(self._styled(column.heading), justify="right", no_wrap=True)
        for row in rows:
            name = self._styled(f"{_MARKS[row.verdict]} {row.arm}", _STYLES[row.verdict])
            faint = _STYLES["none"] if row.verdict == "none" else ""
            table.add_row(name, *(self._styled(cell, faint) for cell in row.cells[part]))
        return table

    def _styled(self, text: str, style: str = "") -> Text:
        text = printable(text)
        return Text(text if self._unicode else text.translate(_ASCII).encode("ascii", "replace").decode(), style=style)
