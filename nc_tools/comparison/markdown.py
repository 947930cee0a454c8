"""Write a comparison as Markdown, for a pull request, a README or a note in MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nc_tools._support.printable import printable
from nc_tools.comparison import wording
from nc_tools.comparison.headline import headline
from nc_tools.comparison.label_text import labels_caption
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.ood_tables import outlier_tables, outlier_tables_text
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import mean_text, summary_columns, summary_rows

# Characters that Markdown would read as markup. An underscore inside a word, a lone bracket and a less-than before a
# number are plain text.
_MARKUP = re.compile(r"[\\|*`]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|(?<=\])\(")
_MARKS = {"better": "▲ ", "worse": "▼ "}


def markdown_text(comparison: Comparison) -> str:
    """Return a comparison as Markdown: headline, summary table and all sections."""
    columns = summary_columns(comparison)
    rows = [(f"{_MARKS.get(row.verdict, '')}{row.arm}", *row.cells) for row in summary_rows(comparison)]
    parts = [
        f"# {_inline(comparison.experiment.name or 'Comparison')}",
        _inline(comparison.experiment.question),
        f"**{_inline(headline(comparison))}**",
        _table(["arm", *(column.heading for column in columns)], rows),
        _inline(labels_caption(comparison)),
        f"▲ significantly better, ▼ significantly worse than {_inline(comparison.baseline)} (Holm-adjusted p < .05). "
        + " ".join(f"{column.heading}: {column.meaning}." for column in columns),
        _section("Unfinished runs", wording.unfinished_texts(comparison)),
        _section("Cautions", [str(caution) for caution in comparison.cautions]),
        _section("Tests", wording.test_texts(comparison)),
        _controls(comparison),
        _section("Detectable difference", [wording.power_heading(comparison), *wording.power_texts(comparison)]),
        _section(
            "Variance between seeds and frames",
            [wording.SHARES_HEADING, *wording.share_texts(comparison)] if comparison.shares else [],
        ),
        _section("Sign-flip test", [wording.sign_flip_text(comparison)]),
        _section(
            "Single models",
            [wording.IMAGES_HEADING, *wording.image_texts(comparison)] if comparison.disagreements else [],
        ),
        _outliers(comparison),
        "## All metrics\n\n" + _all_metrics(comparison),
        _section("Protocol", [f"{key}: {value}" for key, value in comparison.experiment.protocol.items()]),
        _section("Notes", comparison.notes),
        _section("Runs", [wording.status_text(comparison)]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _controls(comparison: Comparison) -> str:
    controls = comparison.controls
    if controls is None:
        return ""
    rows = [
        (
            f"{_MARKS.get(controls.verdict(test), '')}{test.arm}",
            test.reference,
            wording.difference_text(test.paired, comparison.primary),
            wording.p_text(test.p_holm),
        )
        for test in controls.tests
    ]
    table = _table(["arm", "reference", "diff. [95 %]", "Holm p"], rows)
    return f"## Tests against the reference with the same loss\n\n{_inline(wording.family_text(controls))}\n\n{table}"


def _outliers(comparison: Comparison) -> str:
    tables = outlier_tables(comparison)
    if not tables:
        return ""
    parts = [f"## Out-of-distribution detection\n\n{_inline(outlier_tables_text(comparison))}."]
    for table in tables:
        rows = [(arm, *cells) for arm, cells in table.rows]
        parts.append(f"### {_inline(table.heading)}\n\n{_table(['arm', *table.scores], rows)}")
    return "\n\n".join(parts)


def _all_metrics(comparison: Comparison) -> str:
    rows = []
    for key in comparison.metrics:
        metric = metric_info(key)
        cells = (mean_text(comparison, arm, key) for arm in comparison.arms)
        rows.append((f"{metric.label} {metric.arrow}".strip(), *cells))
    caption = labels_caption(comparison)
    return _table(["metric", *comparison.arms], rows) + (f"\n\n{_inline(caption)}" if caption else "")


def _section(title: str, texts: Iterable[str]) -> str:
    items = "\n".join(f"- {_inline(text)}" for text in texts)
    return f"## {title}\n\n{items}" if items else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruled = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(_inline(cell) for cell in row) + " |" for row in ruled)


def _inline(text: str) -> str:
    """Escape Markdown and HTML markup in a text, such as the name of an arm."""
    return _MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))
