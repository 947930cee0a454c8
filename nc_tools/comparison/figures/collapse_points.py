"""The data of the plots over NC1: each arm's mean and seeds as (NC1, metric) points, and which arms make a curve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nc_tools.comparison.frames import means_by_seed
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.metric_table import PROBE
from nc_tools.comparison.prediction_entries import ECE, ECE_SCALED
from nc_tools.comparison.result import Comparison

MIN_ARMS = 4
_MIN_JOINED = 4
_OOD = "test/ood/"
# One score of the logits and one of the features, the first of each list that was recorded: fixed beforehand, since the
# best of many scores is biased upwards.
_OOD_SCORES = {"two": ("msp", "max_logit", "energy"), "one": ("knn", "mahalanobis")}
_SCORE_NAMES = {"msp": "MSP", "max_logit": "MaxLogit", "energy": "Energy", "knn": "KNN", "mahalanobis": "Mahalanobis"}


@dataclass(frozen=True)
class Series:
    """One curve of a panel: its style ("one" or "two"), its name, and the key of its metric."""

    kind: str
    name: str
    metric: str

    @property
    def scale(self) -> float:
        """What values are multiplied by when they are written: 100 for fractions, shown in per cent, else 1."""
        return 100.0 if metric_info(self.metric).unit == "points" or self.metric.startswith(_OOD) else 1.0


@dataclass(frozen=True)
class CurvePoint:
    """One arm on one curve: its mean (x, y), every seed as (seed, NC1, value), and its classifier as text."""

    arm: str
    classifier: str
    x: float
    y: float
    seeds: tuple[tuple[int, float, float], ...]


def panel_series(comparison: Comparison) -> list[tuple[str, list[Series]]]:
    """Return the title and the curves of each panel, also for metrics that no run has."""
    scaled = [Series("two", "as trained", ECE), Series("one", "after temperature scaling", ECE_SCALED)]
    ece = scaled if ECE_SCALED in comparison.metrics else [Series("one", "as trained", ECE)]
    primary = comparison.primary
    panels = [(primary.label, [Series("one", "", primary.key)]), (metric_info(ECE).label, ece)]
    sets = dict.fromkeys(k.split("/")[2] for k in comparison.metrics if k.startswith(_OOD) and k.endswith("/auroc"))
    sets.pop("mean", None)
    for name in sets:
        recorded = [
            Series(kind, _SCORE_NAMES[score], key)
            for kind, scores in _OOD_SCORES.items()
            for score in scores
            if (key := f"{_OOD}{name}/{score}/auroc") in comparison.metrics
        ]
        kinds = dict.fromkeys(series.kind for series in recorded)
        first = [next(series for series in recorded if series.kind == kind) for kind in kinds]
        panels.append((f"outliers ({name.replace('_', ' ')}), AUROC", first))
    return [*panels, (metric_info(PROBE).label, [Series("one", "", PROBE)])]


def nc1_by_arm(comparison: Comparison, collapse: str) -> dict[str, dict[int, float]]:
    """Return the positive NC1 values of each arm by seed; {} if fewer than four arms have one."""
    values = {
        arm: {
            seed: value for seed, value in means_by_seed(comparison.cells.get(arm, {}), collapse).items() if value > 0
        }
        for arm in comparison.arms
    }
    values = {arm: seeds for arm, seeds in values.items() if seeds}
    return values if len(values) >= MIN_ARMS else {}


def curve_points(comparison: Comparison, nc1: Mapping[str, Mapping[int, float]], metric: str) -> list[CurvePoint]:
    """Pair NC1 and a metric by seed; return the arms sorted by mean NC1, the smallest first.

    The mean of NC1 is geometric, since its scale is logarithmic.
    """
    points = []
    for arm, nc1_of in nc1.items():
        values = means_by_seed(comparison.cells[arm], metric)
        seeds = tuple((seed, nc1_of[seed], values[seed]) for seed in nc1_of if seed in values)
        if seeds:
            x = math.exp(math.fsum(math.log(x) for _, x, _ in seeds) / len(seeds))
            y = math.fsum(y for _, _, y in seeds) / len(seeds)
            points.append(CurvePoint(arm, _classifier(comparison, arm), x, y, seeds))
    return sorted(points, key=lambda point: point.x)


def joined_groups(points: Sequence[CurvePoint]) -> list[list[CurvePoint]]:
    """Return the groups of four or more arms with the same classifier, which are joined to a curve."""
    groups: dict[str, list[CurvePoint]] = {}
    for point in points:
        groups.setdefault(point.classifier, []).append(point)
    return [group for group in groups.values() if len(group) >= _MIN_JOINED]


def _classifier(comparison: Comparison, arm: str) -> str:
    """Return an arm's head, and what is done to it after training, as text."""
    config = next(iter(comparison.cells[arm].values())).config
    return json.dumps([config.get("head"), config.get("second_stage")], sort_keys=True, default=str)
