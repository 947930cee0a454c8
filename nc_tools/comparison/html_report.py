"""The HTML page of a comparison: one self-contained file, light and dark, for screen and paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nc_tools.comparison import headline, summary_table, wording
from nc_tools.comparison.compared_run import SCORED_KINDS, ComparedRun
from nc_tools.comparison.cost_table import cost_bars, cost_keys
from nc_tools.comparison.figures.class_recall import class_panels
from nc_tools.comparison.figures.collapse_curves import collapse_panels
from nc_tools.comparison.figures.forest import Forest, family_forest, metric_forest
from nc_tools.comparison.figures.memorization_paths import memorization_panels
from nc_tools.comparison.figures.over_collapse import over_collapse
from nc_tools.comparison.figures.reliability_diagrams import reliability_panels
from nc_tools.comparison.label_text import labels_caption
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.metric_table import METRICS
from nc_tools.comparison.ood_tables import outlier_tables, outlier_tables_text
from nc_tools.comparison.result import Comparison
from nc_tools.plots.html_page import render_page


def comparison_html(comparison: Comparison) -> str:
    """Return the HTML page of a comparison."""
    values = {
        "c": comparison,
        "s": wording,
        "sentences": headline.result_sentences(comparison),
        "t": summary_table,
        "labels": labels_caption(comparison),
        "metric_info": metric_info,
        **_figures(comparison),
        **_facts(comparison),
    }
    filters: dict[str, Callable[[Any], object]] = {"minus": _minus, "p": wording.p_text, "sentence": _sentence}
    return render_page("nc_tools.comparison", "report.html.j2", values, filters)


def _figures(comparison: Comparison) -> dict[str, Any]:
    secondary = [metric_forest(comparison, entry.key) for entry in METRICS if entry.forest]
    return {
        "forest": family_forest(comparison.family),
        "control_forest": family_forest(comparison.controls, name_reference=True) if comparison.controls else None,
        "secondary": [forest for forest in secondary if isinstance(forest, Forest)],
        "class_panels": class_panels(comparison),
        "reliability_panels": reliability_panels(comparison),
        "memorization_panels": memorization_panels(comparison),
        "collapse_panels": collapse_panels(comparison),
        "outlier_tables": outlier_tables(comparison),
        "outlier_text": outlier_tables_text(comparison),
        "costs": cost_bars(comparison),
        "cost_metrics": [metric_info(key) for key in cost_keys(comparison)],
        "over_collapse": over_collapse(comparison),
    }


def _facts(comparison: Comparison) -> dict[str, Any]:
    scored = [run for run in comparison.runs if run.kind in SCORED_KINDS]
    baseline = next(iter(comparison.cells[comparison.baseline].values()))
    images: dict[str, dict[int, Any]] = {}
    for test in comparison.disagreements:
        images.setdefault(test.arm, {})[test.seed] = test
    return {
        "data": _data(baseline.data),
        "finished": f"{sum(run.finished for run in scored)} of {len(scored)}",
        "hardware": sorted({run.hardware for run in scored if run.hardware}),
        "versions": dict(baseline.versions),
        "commit": baseline.git_commit,
        "runs": sorted(comparison.runs, key=lambda run: _position(comparison, run)),
        "images": images,
        "image_seeds": sorted({test.seed for test in comparison.disagreements}),
        "trials": comparison.experiment.trials,
        "chosen": comparison.experiment.tuning.get("chosen") or {},
    }


def _position(comparison: Comparison, run: ComparedRun) -> tuple[int, str, int, int]:
    arms = comparison.arms
    return (arms.index(run.arm) if run.arm in arms else len(arms), run.kind, run.seed, run.draw)


def _data(data: Mapping[str, Any]) -> str:
    counts = data.get("class_counts") or ()
    parts = [str(data.get("name") or "")]
    if counts:
        parts.append(f"{len(counts)} classes, {sum(counts):,} training images")
        parts.append(f"{max(counts):,} to {min(counts):,} per class")
    return ", ".join(part for part in parts if part)


def _sentence(text: str) -> str:
    """Capitalize the first letter of a text."""
    return text[:1].upper() + text[1:]


def _minus(text: object) -> str:
    """Replace each hyphen before a number by a minus sign."""
    words = str(text)
    return "".join(
        "−" if char == "-" and index + 1 < len(words) and words[index + 1].isdigit()
        and (index == 0 or words[index - 1] in " [") else char
        for index, char in enumerate(words)
    )  # fmt: skip
