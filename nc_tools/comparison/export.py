"""Export a comparison as data: CSV with one line per arm and metric, or JSON with everything."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from nc_tools._support.printable import csv_row
from nc_tools.comparison.headline import headline
from nc_tools.comparison.label_text import arm_labels
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.result import ArmMetric, Comparison, Family
from nc_tools.comparison.wording import coverage_text, unfinished_texts
from nc_tools.run_records.json_files import finite_or_null

CSV_COLUMNS = (
    "arm",
    "metric",
    "n",
    "mean",
    "sd",
    "diff",
    "low",
    "high",
    "p",
    "p_holm",
    "pairs",
    "draws",
    "baseline",
    "direction",
    "covers",
    "labels",
)


def long_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a comparison as one dictionary per arm and metric; None for a value that does not exist."""
    labels = arm_labels(comparison)
    fields = [[*_fields(comparison, row), labels[row.arm]] for row in comparison.rows]
    return [dict(zip(CSV_COLUMNS, values, strict=True)) for values in fields]


def comparison_csv(comparison: Comparison) -> str:
    """Return a comparison as CSV, one line per arm and metric; empty for a value that does not exist."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(csv_row(row.values()) for row in long_rows(comparison))
    return out.getvalue()


def comparison_json(comparison: Comparison) -> str:
    """Return the whole comparison as JSON; numbers that are not finite become null."""
    content: dict[str, Any] = {
        "schema": 1,
        "name": comparison.experiment.name,
        "question": comparison.experiment.question,
        "headline": headline(comparison),
        "baseline": comparison.baseline,
        "primary": comparison.primary.key,
        "labels": arm_labels(comparison),
        "arms": [asdict(state) for state in comparison.states],
        "rows": long_rows(comparison),
        "family": _family(comparison.family),
        "controls": _family(comparison.controls) if comparison.controls else None,
        "variance": {
            arm: {**asdict(shares), "frame_error": shares.frame_error} for arm, shares in comparison.shares.items()
        },
        "margins": {"margin": comparison.experiment.margin, "tests": [asdict(test) for test in comparison.margins]},
        "mcnemar": [asdict(test) for test in comparison.disagreements],
        "unfinished": unfinished_texts(comparison),
        "cautions": [asdict(caution) for caution in comparison.cautions],
        "notes": list(comparison.notes),
        "protocol": dict(comparison.experiment.protocol),
        "tuning": dict(comparison.experiment.tuning),
        "runs": [
            {
                "run_id": run.run_id,
                "kind": run.kind,
                "arm": run.arm,
                "seed": run.seed,
                "draw": run.draw,
                "frame_seed": run.frame_seed,
                "status": run.status,
                "why_not": run.why_not,
                "hardware": run.hardware,
                "git_commit": run.git_commit,
                "versions": dict(run.versions),
            }
            for run in comparison.runs
        ],
    }
    return json.dumps(finite_or_null(content)) + "\n"  # with an indent, json uses its slow encoder


def _fields(comparison: Comparison, row: ArmMetric) -> list[Any]:
    paired = row.paired
    differences = [None] * 4 if paired is None else [paired.mean, paired.low, paired.high, paired.p]
    return [
        row.arm,
        row.metric,
        len(row.seeds),
        row.mean,
        row.sd,
        *differences,
        row.p_holm,
        paired.n if paired else 0,
        row.draws,
        comparison.baseline,
        metric_info(row.metric).direction,
        _covers(comparison, row) if paired and paired.low is not None else None,
    ]


def _covers(comparison: Comparison, row: ArmMetric) -> str:
    """Return what the interval of a row covers, such as "seeds, frames, images"."""
    test = comparison.test(row.arm)
    primary = row.metric == comparison.primary.key
    parts = ["seeds"]
    if test is not None and test.frames in ("own", "crossed"):
        parts.append("frames")
    return ", ".join([*parts, "images"] if primary and comparison.family.covers_images else parts)


def _family(family: Family) -> dict[str, Any]:
    tests = [{**asdict(test), "verdict": family.verdict(test)} for test in family.tests]
    return {
        "name": family.name,
        "metric": family.metric,
        "size": family.size,
        "covers_images": family.covers_images,
        "coverage": coverage_text(family),
        "withheld": family.withheld,
        "tests": tests,
    }
