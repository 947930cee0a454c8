"""The comparison for other programs: CSV in long form, JSON with everything."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict
from typing import Any

from nc_tools.comparison import wording
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.result import Comparison, Family, Row

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
)


def long_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return one mapping per arm and metric, in the metric's own unit; None is a value there is not."""
    return [dict(zip(CSV_COLUMNS, _fields(comparison, row), strict=True)) for row in comparison.rows]


def comparison_csv(comparison: Comparison) -> str:
    """Write one line per arm and metric, in the metric's own unit; an empty field is a value there is not."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(long_rows(comparison))
    return out.getvalue()


def comparison_json(comparison: Comparison) -> str:
    """Write the whole comparison as JSON; a number that is not finite becomes null."""
    found: dict[str, Any] = {
        "schema": 1,
        "name": comparison.experiment.name,
        "question": comparison.experiment.question,
        "headline": wording.headline(comparison),
        "baseline": comparison.baseline,
        "primary": comparison.primary.key,
        "arms": [asdict(state) for state in comparison.states],
        "rows": long_rows(comparison),
        "family": _family(comparison.family),
        "controls": _family(comparison.controls) if comparison.controls else None,
        "variance": {
            arm: {**asdict(shares), "draw_error": shares.draw_error} for arm, shares in comparison.shares.items()
        },
        "mcnemar": [asdict(found) for found in comparison.disagreements],
        "unfinished": wording.unfinished_texts(comparison),
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
                "status": run.status,
                "why_not": run.why_not,
                "hardware": run.hardware,
                "git_commit": run.git_commit,
                "versions": dict(run.versions),
            }
            for run in comparison.runs
        ],
    }
    return json.dumps(_finite(found), indent=1, ensure_ascii=False, default=str) + "\n"


def _fields(comparison: Comparison, row: Row) -> list[Any]:
    pair = row.paired
    differences = [None] * 4 if pair is None else [pair.mean, pair.low, pair.high, pair.p]
    return [
        row.arm,
        row.metric,
        len(row.seeds),
        row.mean,
        row.sd,
        *differences,
        row.p_holm,
        pair.n if pair else 0,
        row.draws,
        comparison.baseline,
        metric_info(row.metric).direction,
    ]


def _family(family: Family) -> dict[str, Any]:
    tests = [{**asdict(test), "verdict": family.verdict(test)} for test in family.tests]
    return {"name": family.name, "metric": family.metric, "size": family.size, "tests": tests}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
