"""Tables of out-of-distribution detection: AUROC by score for each arm, one table for each set of outliers."""

from __future__ import annotations

from dataclasses import dataclass

from nc_tools.comparison.metric_info import OOD_SCORES, OOD_SETS, metric_info
from nc_tools.comparison.result import Comparison

MEANING = (
    "AUROC in per cent, mean over seeds; higher is better, 50 is chance. Scores are fitted on the training set, none "
    "on outliers; with so many of them the largest entry of a row flatters its arm: choose a score beforehand"
)
"""What the numbers are, whatever the arms."""


def meaning(comparison: Comparison) -> str:
    """Say what the numbers are, and which arms have trained against outliers of another set."""
    return ". ".join([MEANING, *(caution.text for caution in comparison.cautions if caution.kind == "outliers")])


@dataclass(frozen=True)
class OutlierTable:
    """One set of outliers.

    Attributes:
        heading: Which set, in words.
        scores: Short names of the scores, in order.
        rows: (arm, a cell for each score).
    """

    heading: str
    scores: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def outlier_tables(comparison: Comparison) -> tuple[OutlierTable, ...]:
    """Return a table for every set that any run was measured with; none where no run was."""
    found: dict[str, list[str]] = {}
    for key in comparison.metrics:
        parts = key.split("/")
        if parts[:2] == ["test", "ood"] and len(parts) == 5 and parts[4] == "auroc":
            found.setdefault(parts[2], []).append(parts[3])
    order = [*(name for name in OOD_SETS if name in found), *sorted(found.keys() - OOD_SETS.keys())]
    return tuple(_table(comparison, name, found[name]) for name in order)


def _table(comparison: Comparison, name: str, having: list[str]) -> OutlierTable:
    scores = [*(s for s in OOD_SCORES if s in having), *(s for s in having if s not in OOD_SCORES)]
    rows = []
    for arm in comparison.arms:
        cells = []
        for score in scores:
            key = f"test/ood/{name}/{score}/auroc"
            row = comparison.row(arm, key)
            cells.append(metric_info(key).value(row.mean if row else None))
        rows.append((arm, tuple(cells)))
    return OutlierTable(OOD_SETS.get(name, name), tuple(OOD_SCORES.get(s, s) for s in scores), tuple(rows))
