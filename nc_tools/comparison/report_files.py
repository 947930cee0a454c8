"""Write the report of a comparison as HTML, Markdown, CSV, JSON and LaTeX files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.disk_full import is_disk_full
from nc_tools.comparison.export import comparison_csv, comparison_json
from nc_tools.comparison.figures.over_collapse import over_collapse_document
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.latex import latex_table
from nc_tools.comparison.markdown import markdown_text
from nc_tools.comparison.result import Comparison

_FIGURE = "over_nc1.svg"


def report_folder(out: Path, comparison: Comparison) -> Path:
    """Return the folder of a comparison's report in an output folder; each baseline has its own.

    ``report`` is that of the experiment's own baseline; a report against another arm is in ``report/against-<arm>``.

    Args:
        out: The output folder.
        comparison: The comparison.
    """
    own = comparison.experiment.baseline or comparison.arms[0]
    if comparison.baseline == own:
        return out / "report"
    name = re.sub(r"[^A-Za-z0-9._]+", "-", comparison.baseline).strip("-.")[:60]
    if name != comparison.baseline:  # two arms must not share a folder
        name = f"{name}-{hashlib.sha256(comparison.baseline.encode('utf-8', 'replace')).hexdigest()[:6]}"
    return out / "report" / f"against-{name}"


def write_comparison(
    comparison: Comparison, out: str | Path, *, formats: str | Sequence[str] = ("html", "md", "csv", "json", "tex")
) -> dict[str, Path]:
    """Write a comparison to files ``comparison.<format>`` in a folder; a failed write keeps the old file.

    With the HTML page comes ``over_nc1.svg``, its plots of metrics over NC1 as one figure, if there are any.

    Args:
        comparison: The comparison.
        out: The folder; it is created if it does not exist.
        formats: One or more of html, md, csv, json, tex (a table for a paper).

    Returns:
        The path of each file by its format.

    Raises:
        ValueError: If a format is unknown.
        OSError: If the folder cannot be written; the message names it.
    """
    writers: dict[str, Callable[[Comparison], str]] = {
        "html": comparison_html,
        "md": markdown_text,
        "csv": comparison_csv,
        "json": comparison_json,
        "tex": latex_table,
    }
    out, formats = Path(out), [formats] if isinstance(formats, str) else formats
    unknown = [name for name in formats if name not in writers]
    if unknown:
        raise ValueError(f"formats must be among {', '.join(writers)}, got {', '.join(unknown)}. Remove these names")
    texts = {f"comparison.{name}": writers[name](comparison) for name in formats}
    if "html" in formats and (figure := over_collapse_document(comparison)):
        texts[_FIGURE] = figure
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _write(out / name, text)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise OSError(
            f"the report cannot be written to {out} ({error.strerror or error}): make that folder writable, or write "
            "the report to another one with nc_tools.compare(FOLDER, out=OTHER)"
        ) from error
    return {name: out / f"comparison.{name}" for name in formats}


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
