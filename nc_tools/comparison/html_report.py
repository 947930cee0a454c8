"""The HTML page of a comparison: one self-contained file for screen and print, which also works without JavaScript."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from nc_tools.comparison import headline, summary_table, wording
from nc_tools.comparison.arms_compared import arms_in_words, common_facts
from nc_tools.comparison.calibration_table import calibration_tables
from nc_tools.comparison.class_accuracy import class_rows, confused_pairs, table_arms
from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.cost_table import cost_bars, cost_keys, most_side_by_side
from nc_tools.comparison.figures.arm_styles import arm_styles
from nc_tools.comparison.figures.class_recall import class_figure, coverage_figures
from nc_tools.comparison.figures.confusion_maps import confusion_figures
from nc_tools.comparison.figures.cost_gain import cost_figure
from nc_tools.comparison.figures.forest import Forest, family_forest, metric_forest
from nc_tools.comparison.figures.learning_curves import collapse_curves, learning_curves
from nc_tools.comparison.figures.memorization_paths import memorization_panels
from nc_tools.comparison.figures.over_collapse import over_collapse
from nc_tools.comparison.figures.reliability_diagrams import reliability_panels
from nc_tools.comparison.label_text import labels_caption
from nc_tools.comparison.metric_groups import metric_groups, transfer_keys
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.metric_table import METRICS
from nc_tools.comparison.mistake_cards import mistake_groups, mistakes_link
from nc_tools.comparison.ood_tables import outlier_tables, outlier_tables_text
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.uncertainty_tables import selective_table, set_tables
from nc_tools.plots.html_page import render_page

_HOLDOUT = "holdout/gen/balanced_accuracy"


def comparison_html(comparison: Comparison) -> str:
    """Return the HTML page of a comparison."""
    script = (files("nc_tools.comparison") / "templates" / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {
        "c": comparison,
        "s": wording,
        "sentences": headline.result_sentences(comparison),
        "t": summary_table,
        "labels": labels_caption(comparison),
        "metric_info": metric_info,
        "script": Markup(script),  # noqa: S704 (our own file)
        # The page may load nothing and run no other script, even if the name of an arm or class holds HTML.
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src 'sha256-{digest}'",
        "styles": arm_styles(comparison),
        "words": {words.arm: words for words in arms_in_words(comparison)},
        "common": common_facts(comparison),
        **_figures(comparison),
        **_classes(comparison),
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
        "reliability_panels": reliability_panels(comparison),
        "calibration_tables": calibration_tables(comparison),
        "set_tables": set_tables(comparison),
        "coverage_figures": coverage_figures(comparison),
        "selective": selective_table(comparison),
        "memorization_panels": memorization_panels(comparison),
        "learning_figures": learning_curves(comparison),
        "collapse_figures": collapse_curves(comparison),
        "outlier_tables": outlier_tables(comparison),
        "outlier_text": outlier_tables_text(comparison),
        "transfer_keys": transfer_keys(comparison),
        "costs": cost_bars(comparison),
        "cost_metrics": [metric_info(key) for key in cost_keys(comparison)],
        "side_by_side": most_side_by_side(comparison),
        "cost_figure": cost_figure(comparison),
        "over_collapse": over_collapse(comparison),
    }


def _classes(comparison: Comparison) -> dict[str, Any]:
    rows = class_rows(comparison)
    return {
        "class_figure": class_figure(comparison),
        "class_rows": rows,
        "class_arms": table_arms(comparison, rows),
        "confusion_figures": confusion_figures(comparison),
        "confused_pairs": confused_pairs(comparison),
        "mistake_groups": mistake_groups(comparison),
        "mistakes_link": mistakes_link(comparison),
        "confused_arm": next((arm for arm in comparison.confusion if arm != comparison.baseline), ""),
    }


def _facts(comparison: Comparison) -> dict[str, Any]:
    baseline = next(iter(comparison.cells[comparison.baseline].values()))
    images: dict[str, dict[int, Any]] = {}
    for test in comparison.disagreements:
        images.setdefault(test.arm, {})[test.seed] = test
    return {
        "versions": dict(baseline.versions),
        "commit": baseline.git_commit,
        "runs": sorted(comparison.runs, key=lambda run: _position(comparison, run)),
        "holdout": metric_info(_HOLDOUT),
        "metric_groups": metric_groups(comparison),
        "images": images,
        "image_seeds": sorted({test.seed for test in comparison.disagreements}),
        "trials": comparison.experiment.trials,
        "chosen": comparison.experiment.tuning.get("chosen") or {},
    }


def _position(comparison: Comparison, run: ComparedRun) -> tuple[int, str, int, int]:
    arms = comparison.arms
    return (arms.index(run.arm) if run.arm in arms else len(arms), run.kind, run.seed, run.draw)


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
