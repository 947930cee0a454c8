"""Recall of each class over its number of training images, one panel per arm."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.figures.panel import Panel, make_panel
from nc_tools.comparison.result import Comparison
from nc_tools.plots import svg
from nc_tools.plots.axis import Axis, axis_over
from nc_tools.plots.panel_frame import Curve, Frame

_GROUPS = 12


def class_panels(comparison: Comparison) -> list[Panel]:
    """Draw recall over the number of training images, each arm with the baseline behind it."""
    recalls = {arm: _recall(list(comparison.cells.get(arm, {}).values())) for arm in comparison.arms}
    recalls = {arm: points for arm, points in recalls.items() if points}
    if not recalls:
        return []
    counts = [count for points in recalls.values() for count, _ in points]
    imbalanced = max(counts) > 1.5 * min(counts)
    frame = Frame(axis_over(counts, log=imbalanced), Axis(0.0, 1.0))
    reference = _group_means(recalls.get(comparison.baseline, []))
    panels = []
    for arm, points in recalls.items():
        parts = frame.axes("training images of the class", "recall, %", y_scale=100)
        if arm != comparison.baseline and reference:
            parts.append(svg.polyline(frame.points(reference), "curve reference"))
        parts += [svg.circle(*frame.point(count, value), 2.6, "dot one") for count, value in points]
        groups = _group_means(points)
        parts.append(svg.polyline(frame.points(groups), "curve one"))
        caption = f"rarest {100 * groups[0][1]:.0f} %, most frequent {100 * groups[-1][1]:.0f} %"
        panels.append(make_panel(arm, ": recall by training images of the class", caption, frame, parts))
    return panels


def _recall(runs: Sequence[ComparedRun]) -> list[tuple[float, float]]:
    """Return (training images, mean recall over runs) of each class, rarest first, without absent classes."""
    values: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        if run.per_class is not None:
            recall = run.per_class
            for name, count, value in zip(recall.classes, recall.train_counts, recall.recall, strict=True):
                if math.isfinite(value):
                    values.setdefault(name, []).append((max(float(count), 1.0), value))
    means = [(sum(c for c, _ in v) / len(v), sum(r for _, r in v) / len(v)) for v in values.values()]
    return sorted(means)


def _group_means(points: Curve) -> list[tuple[float, float]]:
    """Return means of neighboring classes, which make a line of many points; equal counts share a group."""
    size = max(1, math.ceil(len(points) / _GROUPS))
    groups: list[list[tuple[float, float]]] = []
    for index, point in enumerate(points):
        same_count = bool(groups) and groups[-1][-1][0] == point[0]
        if same_count or (index % size and groups):
            groups[-1].append(point)
        else:
            groups.append([point])
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
