"""Prints a comparison where people run it: 100 columns, two tables on narrower ones, plain text in a pipe."""

from __future__ import annotations

import textwrap

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from nc_tools.comparison import wording
from nc_tools.comparison.metric_info import p_text
from nc_tools.comparison.ood_tables import outlier_tables
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import Column, TableRow, columns, lines

_TEST_COLUMNS = 4
_LONGEST_ARM = 20
_MARKS = {"better": "▲", "worse": "▼", "open": " ", "baseline": " ", "none": " "}
_STYLES = {"better": "bold green", "worse": "bold red", "open": "", "baseline": "bold", "none": "dim"}
_ASCII = str.maketrans({"▲": "+", "▼": "-", "↑": "^", "↓": "v", "→": ">", "×": "x", "±": "~", "–": "-"})


def render_terminal(comparison: Comparison, console: Console | None = None) -> None:
    """Print the headline, the paired table and what stands behind it.

    Args:
        comparison: What to print.
        console: Where to; standard output by default. Without a terminal rich writes no color; marks carry
            the verdict everywhere, and an output that knows no Unicode gets ASCII.
    """
    out = _Printer(console or Console(highlight=False))
    experiment = comparison.experiment
    out.blank()
    out.text(experiment.name or "comparison", style="bold")
    if experiment.question:
        out.text(experiment.question)
    out.blank()
    out.text(wording.headline(comparison), style="bold")
    out.blank()
    all_columns, all_lines = columns(comparison), lines(comparison)
    out.table(all_columns, all_lines)
    unit = f"; differences in {comparison.primary.unit} of 100" if comparison.primary.unit else ""
    out.text(
        f"▲ better, ▼ worse than {comparison.baseline} with Holm p < .05; ↑ higher is better, "
        f"↓ lower is better{unit}; baseline's seeds {wording.seeds_text(comparison)}",
        style="dim",
    )
    unfinished = wording.unfinished_texts(comparison)
    if unfinished:
        out.section("Not finished", unfinished, style="yellow")
    for told in outlier_tables(comparison):
        out.section(f"Out-of-distribution, AUROC: {told.heading}", [])
        heads = tuple(Column(score, "") for score in told.scores)
        out.table(heads, tuple(TableRow(arm, cells, "open") for arm, cells in told.rows))
    _behind(comparison, out)


def _behind(comparison: Comparison, out: _Printer) -> None:
    """What stands behind the table."""
    out.section("Family", [wording.family_text(comparison.family)])
    if comparison.controls is not None:
        controls = comparison.controls
        texts = [wording.family_text(controls)]
        for test in controls.tests:
            text = wording.difference_text(test.paired, comparison.primary)
            mark = _MARKS[controls.verdict(test)]
            texts.append(f"{mark} {test.arm} against {test.reference}: {text}, Holm p {p_text(test.p_holm)}")
        out.section("Second family", texts)
    out.section("Detectable difference", [wording.reach_heading(comparison), *wording.reach_texts(comparison)])
    if comparison.shares:
        out.section("Variance", [wording.SHARES_HEADING, *wording.share_texts(comparison)])
    out.section("Rank tests", [wording.rank_text(comparison)])
    if comparison.disagreements:
        out.section("Single models", [wording.IMAGES_HEADING, *wording.image_texts(comparison)])
    if comparison.cautions:
        out.section("Cautions", [str(caution) for caution in comparison.cautions], style="yellow")
    if comparison.notes:
        out.section("Notes", list(comparison.notes))


class _Printer:
    """Prints text that is never read as markup, since names come from other people's files."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._unicode = console.encoding.lower().startswith("utf")

    def blank(self) -> None:
        self._console.print()

    def text(self, text: str, *, style: str = "", indent: str = "") -> None:
        # Wrapped here, since the console leaves blanks at the ends of the lines that it wraps.
        room = max(self._console.width - len(indent), 20)
        for line in textwrap.wrap(text, room, break_on_hyphens=False):
            self._console.print(self._made(indent + line, style), soft_wrap=True)

    def section(self, title: str, texts: list[str], *, style: str = "") -> None:
        self.blank()
        self.text(title, style="bold")
        for text in texts:
            self.text(text, style=style, indent="  ")

    def table(self, shown: tuple[Column, ...], rows: tuple[TableRow, ...]) -> None:
        """One table where it fits, closer set where that helps, else one for the test, one for the rest."""
        unbounded = self._console.options.update(width=1000)
        for gap in (1, 0):
            whole = self._table(shown, rows, slice(None), gap)
            if Measurement.get(self._console, unbounded, whole).maximum <= self._console.width:
                self._console.print(whole)
                self.blank()
                return
        parts = [slice(0, _TEST_COLUMNS), slice(_TEST_COLUMNS, None)]
        for part in parts[: 1 + (len(shown) > _TEST_COLUMNS)]:
            self._console.print(self._table(shown, rows, part, 1))
            self.blank()

    def _table(self, shown: tuple[Column, ...], rows: tuple[TableRow, ...], part: slice, gap: int) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD if self._unicode else box.ASCII2,
            pad_edge=False,
            padding=(0, gap, 0, 0),
            show_edge=False,
        )
        table.add_column("  arm", overflow="fold", max_width=_LONGEST_ARM)
        for column in shown[part]:
            table.add_column(self._made(column.heading), justify="right", no_wrap=True)
        for line in rows:
            name = self._made(f"{_MARKS[line.verdict]} {line.arm}", _STYLES[line.verdict])
            faint = _STYLES["none"] if line.verdict == "none" else ""
            table.add_row(name, *(self._made(cell, faint) for cell in line.cells[part]))
        return table

    def _made(self, text: str, style: str = "") -> Text:
        return Text(text if self._unicode else text.translate(_ASCII).encode("ascii", "replace").decode(), style=style)
