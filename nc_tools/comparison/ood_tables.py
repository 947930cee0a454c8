"""Tables of out-of-distribution detection: AUROC by score for each arm, one table per set of outliers."""

from __future__ import annotations

from dataclasses import dataclass

from nc_tools.comparison.metric_entry import OOD_SCORES, OOD_SETS
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import mean_text

_MEANING = (
    "AUROC in per cent, mean over seeds; higher is better, 50 is chance. Scores are fitted on the training set, not on "
    "outliers. The largest of many scores is biased upwards: choose one score beforehand"
)


@dataclass(frozen=True)
class OutlierTable:
    """Out-of-distribution detection on one set of outlier images: AUROC of each arm and score.

    Attributes:
        heading: The set, in words.
        scores: Short names of the scores, in order.
        rows: (arm, a cell for each score).
    """

    heading: str
    scores: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def outlier_tables_text(comparison: Comparison) -> str:
    """Return the explanation of the tables, which names the arms that trained with outlier images if not all did."""
    return ". ".join([_MEANING, *(caution.text for caution in comparison.cautions if caution.kind == "outliers")])


def outlier_tables(comparison: Comparison) -> tuple[OutlierTable, ...]:
    """Return one table for each set of outlier images on which at least one run was evaluated."""
    scores_of: dict[str, list[str]] = {}
    for key in comparison.metrics:
        parts = key.split("/")
        if parts[:2] == ["test", "ood"] and len(parts) == 5 and parts[4] == "auroc":
            scores_of.setdefault(parts[2], []).append(parts[3])
    if len(scores_of) == 2:  # there is one set, and the mean repeats it
        scores_of.pop("mean", None)
    order = [*(name for name in OOD_SETS if name in scores_of), *sorted(scores_of.keys() - OOD_SETS.keys())]
    return tuple(_table(comparison, name, scores_of[name]) for name in order)


def _table(comparison: Comparison, name: str, recorded: list[str]) -> OutlierTable:
    scores = [*(s for s in OOD_SCORES if s in recorded), *(s for s in recorded if s not in OOD_SCORES)]
    rows = tuple(
        (arm, tuple(mean_text(comparison, arm, f"test/ood/{name}/{score}/auroc") for score in scores))
        for arm in comparison.arms
    )
    return OutlierTable(OOD_SETS.get(name, name), tuple(OOD_SCORES.get(s, s) for s in scores), rows)
