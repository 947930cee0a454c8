"""Writes the report: one HTML file that needs nothing else, and the same as Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nc_tools._support.atomic_write import atomic_write
from nc_tools.comparison import summary_table, wording
from nc_tools.comparison.export import comparison_csv, comparison_json
from nc_tools.comparison.figures import over_collapse, panels
from nc_tools.comparison.figures.forest import Forest, family_forest, metric_forest
from nc_tools.comparison.markdown import markdown_text
from nc_tools.comparison.metric_info import metric_info, p_text
from nc_tools.comparison.ood_tables import meaning, outlier_tables
from nc_tools.comparison.read_experiment import SCORED_KINDS, ComparedRun
from nc_tools.comparison.result import Comparison

FIGURE = "over_nc1.svg"
_COSTS = ("perf/seconds", "perf/parameters", "perf/head_parameters", "perf/max_memory_mb")


@dataclass(frozen=True)
class CostBar:
    """One arm's cost: its texts, and the length of its bar as a percentage of the longest."""

    arm: str
    length: float
    ratio: str
    texts: tuple[str, ...]


def write_comparison(
    comparison: Comparison, out: Path, *, formats: Sequence[str] = ("html", "md", "csv", "json")
) -> dict[str, Path]:
    """Write ``comparison.<format>`` files into a folder, each whole or not at all.

    Beside the HTML page, ``over_nc1.svg`` holds its panels over measured NC1 as a figure of its own, where it has any.

    Args:
        comparison: What to write.
        out: The folder, made if it is not there.
        formats: Any of html, md, csv, json.

    Returns:
        The path of each file by its format.

    Raises:
        ValueError: If a format is unknown.
    """
    writers: dict[str, Callable[[Comparison], str]] = {
        "html": comparison_html,
        "md": markdown_text,
        "csv": comparison_csv,
        "json": comparison_json,
    }
    unknown = [name for name in formats if name not in writers]
    if unknown:
        raise ValueError(f"formats must be among {', '.join(writers)}, got {', '.join(unknown)}: leave those out")
    out.mkdir(parents=True, exist_ok=True)
    if "html" in formats and (figure := over_collapse.over_collapse_document(comparison)):
        _write(out / FIGURE, figure)
    return {name: _write(out / f"comparison.{name}", writers[name](comparison)) for name in formats}


def comparison_html(comparison: Comparison) -> str:
    """Render one self-contained page: no script, no request, light and dark, screen and paper."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nc_tools.comparison"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(minus=_minus, p=p_text, sentence=_sentence)
    page = environment.get_template("report.html.j2")
    return page.render(
        c=comparison, s=wording, t=summary_table, metric_info=metric_info, **_figures(comparison), **_facts(comparison)
    )


def _figures(comparison: Comparison) -> dict[str, Any]:
    secondary = [
        metric_forest(comparison, metric)
        for metric in (summary_table.NLL, summary_table.ECE_SCALED, summary_table.PROBE)
    ]
    return {
        "forest": family_forest(comparison.family),
        "control_forest": family_forest(comparison.controls, name_reference=True) if comparison.controls else None,
        "secondary": [forest for forest in secondary if isinstance(forest, Forest)],
        "class_panels": panels.class_panels(comparison),
        "reliability_panels": panels.reliability_panels(comparison),
        "collapse_panels": panels.collapse_panels(comparison),
        "outlier_tables": outlier_tables(comparison),
        "outlier_meaning": meaning(comparison),
        "costs": _costs(comparison),
        "cost_measures": [metric_info(key) for key in _COSTS if key in comparison.metrics],
        "over_collapse": over_collapse.over_collapse(comparison),
    }


def _facts(comparison: Comparison) -> dict[str, Any]:
    scored = [run for run in comparison.runs if run.kind in SCORED_KINDS]
    baseline = next(iter(comparison.cells[comparison.baseline].values()))
    by_arm: dict[str, dict[int, Any]] = {}
    for found in comparison.disagreements:
        by_arm.setdefault(found.arm, {})[found.seed] = found
    return {
        "data": _data(baseline.data),
        "finished": f"{sum(run.finished for run in scored)} of {len(scored)}",
        "hardware": sorted({run.hardware for run in scored if run.hardware}),
        "versions": dict(baseline.versions),
        "commit": baseline.git_commit,
        "runs": sorted(comparison.runs, key=lambda run: _place(comparison, run)),
        "images": by_arm,
        "image_seeds": sorted({found.seed for found in comparison.disagreements}),
        "trials": [trial for trial in comparison.experiment.tuning.get("trials") or () if isinstance(trial, Mapping)],
        "chosen": comparison.experiment.tuning.get("chosen") or {},
    }


def _place(comparison: Comparison, run: ComparedRun) -> tuple[int, str, int, int]:
    arms = comparison.arms
    return (arms.index(run.arm) if run.arm in arms else len(arms), run.kind, run.seed, run.draw)


def _data(data: Mapping[str, Any]) -> str:
    counts = data.get("class_counts") or ()
    parts = [str(data.get("name") or "")]
    if counts:
        parts.append(f"{len(counts)} classes, {sum(counts):,} training images")
        parts.append(f"{max(counts):,} to {min(counts):,} a class")
    return ", ".join(part for part in parts if part)


def _costs(comparison: Comparison) -> list[CostBar]:
    keys = [key for key in _COSTS if key in comparison.metrics]
    if not keys:
        return []
    means = {arm: (row.mean if (row := comparison.row(arm, keys[0])) else None) for arm in comparison.arms}
    longest = max((value for value in means.values() if value), default=1.0)
    base = means[comparison.baseline]
    return [
        CostBar(
            arm,
            100 * value / longest,
            f"{value / base:.2f} ×" if base else "–",
            tuple(summary_table.mean_text(comparison, arm, key) for key in keys),
        )
        for arm, value in means.items()
        if value
    ]


def _sentence(text: str) -> str:
    """Begin with a capital and leave names as they are."""
    return text[:1].upper() + text[1:]


def _minus(text: object) -> str:
    """Set a proper minus sign before figures; words keep their hyphens."""
    words = str(text)
    return "".join(
        "−" if char == "-" and index + 1 < len(words) and words[index + 1].isdigit()
        and (index == 0 or words[index - 1] in " [") else char
        for index, char in enumerate(words)
    )  # fmt: skip


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
