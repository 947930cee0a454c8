"""NC1 over epochs on a log scale, one panel per arm."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.figures.panel import Panel, make_panel
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.metric_table import HOLDOUT_NC1, NC1
from nc_tools.comparison.result import Comparison
from nc_tools.plots import svg
from nc_tools.plots.axis import axis_over
from nc_tools.plots.panel_frame import Curve, Frame


def collapse_panels(comparison: Comparison) -> list[Panel]:
    """Draw NC1 of the training set and of the hold-out, with the baseline's training set behind them."""
    train = {arm: _curves(list(comparison.cells.get(arm, {}).values()), NC1) for arm in comparison.arms}
    holdout = {arm: _curves([run for run in comparison.runs if run.arm == arm], HOLDOUT_NC1) for arm in comparison.arms}
    points = [point for curves in (*train.values(), *holdout.values()) for curve in curves for point in curve]
    if not points:
        return []
    frame = Frame(axis_over([x for x, _ in points], margin=0.02), axis_over([y for _, y in points], log=True))
    reference = _mean_curve(train[comparison.baseline])
    panels = []
    for arm in comparison.arms:
        if not train[arm] and not holdout[arm]:
            continue
        parts = frame.axes("epoch", "NC1, log scale")
        if arm != comparison.baseline and reference:
            parts.append(svg.polyline(frame.points(reference), "curve reference"))
        for curves, kind in ((holdout[arm], "two"), (train[arm], "one")):
            if curves:
                parts.append(svg.polygon(frame.points(_outline(curves)), f"band {kind}"))
                parts.append(svg.polyline(frame.points(_mean_curve(curves)), f"curve {kind}"))
        last = [
            f"{name} {metric_info(NC1).value(_mean_curve(curves)[-1][1])}"
            for name, curves in (("train", train[arm]), ("hold-out", holdout[arm]))
            if curves
        ]
        panels.append(make_panel(arm, ": NC1 over epochs", f"last epoch: {', '.join(last)}", frame, parts))
    return panels


def _curves(runs: Sequence[ComparedRun], key: str) -> list[Curve]:
    curves: list[Curve] = []
    for run in runs:
        points = run.curves.get(key, ())
        curve = [(float(step), value) for step, value in points if math.isfinite(value) and value > 0]
        if curve and run.finished:
            curves.append(curve)
    return curves


def _mean_curve(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Return the geometric mean over runs at each step, since the scale is logarithmic."""
    return [(step, math.exp(sum(map(math.log, values)) / len(values))) for step, values in _by_step(curves)]


def _outline(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Return the outline of the band from the lowest to the highest run."""
    steps = _by_step(curves)
    return [(step, max(values)) for step, values in steps] + [(step, min(values)) for step, values in reversed(steps)]


def _by_step(curves: Sequence[Curve]) -> list[tuple[float, list[float]]]:
    values: dict[float, list[float]] = {}
    for curve in curves:
        for step, value in curve:
            values.setdefault(step, []).append(value)
    return sorted(values.items())
