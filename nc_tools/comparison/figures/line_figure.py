"""A figure of one quantity over training: a line for each arm, the mean over its seeds, with a band of their range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.figures.arm_styles import ArmStyle
from nc_tools.comparison.figures.figure_data import DataFigure, csv_link
from nc_tools.comparison.metric_info import MetricInfo
from nc_tools.plots import svg
from nc_tools.plots.axis import axis_over
from nc_tools.plots.panel_frame import Frame, Margins

_WIDTH, _HEIGHT = 400.0, 250.0
_MARGINS = Margins(46.0, 12.0, 12.0, 34.0)
_MOST_POINTS = 120


@dataclass(frozen=True)
class _Line:
    """Mean, smallest and largest value over the runs of one arm at each step, and the number of these runs."""

    arm: str
    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    runs: int


def line_figure(
    runs: Mapping[str, Sequence[ComparedRun]],
    metric: MetricInfo,
    styles: Mapping[str, ArmStyle],
    *,
    log: bool = False,
) -> DataFigure | None:
    """Draw the curves of a metric; None if no run recorded it at two steps.

    Args:
        runs: The finished runs of each arm.
        metric: The metric.
        styles: How each arm is drawn.
        log: Whether the vertical axis is logarithmic; the mean is then geometric.
    """
    lines = [line for arm, of_arm in runs.items() if (line := _line(arm, of_arm, metric.key, log=log)) is not None]
    if not lines or max(len(line.steps) for line in lines) < 2:
        return None
    x = axis_over([step for line in lines for step in line.steps], margin=0.02)
    y = axis_over([value for line in lines for value in (*line.low, *line.high)], log=log)
    frame = Frame(x, y, _WIDTH, _HEIGHT, _MARGINS)
    scale = 100.0 if metric.unit == "points" else 1.0
    parts = frame.axes("epoch", "", y_scale=scale)
    for line in sorted(lines, key=lambda line: styles[line.arm].kind == "arm-base"):  # the baseline on top
        parts.append(_drawing(line, frame, styles[line.arm]))
    last = "; ".join(f"{line.arm} {metric.value(line.mean[-1])}" for line in lines)
    reading = metric.reading if metric.direction != "neither" else ""
    units = ["in per cent"] if metric.unit == "points" else []
    caption = ", ".join([*units, *(["log scale"] if log else []), *([reading] if reading else [])])
    label = f"{metric.label} over epochs; at the end {last}"
    drawing = frame.hover_picture(label, parts, unit=" %" if metric.unit == "points" else "", y_scale=scale)
    title = metric.label[:1].upper() + metric.label[1:]
    return DataFigure(title, drawing, caption, csv_link(f"{metric.key} over epochs", _rows(lines)))


def _line(arm: str, runs: Sequence[ComparedRun], key: str, *, log: bool) -> _Line | None:
    by_step: dict[float, list[float]] = {}
    number = 0
    for run in runs:
        curve = [(float(step), value) for step, value in run.curves.get(key, ()) if math.isfinite(value)]
        curve = [(step, value) for step, value in curve if value > 0 or not log]
        number += bool(curve)
        for step, value in curve:
            by_step.setdefault(step, []).append(value)
    # A step that only some runs measured would make the mean jump.
    steps = sorted(step for step, values in by_step.items() if len(values) == number)
    if not steps:
        return None
    mean: Callable[[list[float]], float] = _geometric_mean if log else fmean
    columns = [by_step[step] for step in steps]
    return _Line(
        arm, tuple(steps), tuple(map(mean, columns)), tuple(map(min, columns)), tuple(map(max, columns)), number
    )


def _geometric_mean(values: list[float]) -> float:
    return math.exp(fmean(map(math.log, values)))


def _drawing(line: _Line, frame: Frame, style: ArmStyle) -> Markup:
    """Draw band, line and a dot at the end; a long curve is thinned to the points that the width can show."""
    every = max(1, math.ceil(len(line.steps) / _MOST_POINTS))
    kept = [*range(0, len(line.steps) - 1, every), len(line.steps) - 1]
    steps = [line.steps[i] for i in kept]
    marks = []
    if line.runs > 1:
        upper = [(line.steps[i], line.high[i]) for i in kept]
        lower = [(line.steps[i], line.low[i]) for i in reversed(kept)]
        marks.append(svg.polygon(frame.points([*upper, *lower]), f"band {style.kind}"))
    mean = [line.mean[i] for i in kept]
    marks.append(svg.polyline(frame.points(list(zip(steps, mean, strict=True))), f"curve {style.kind}"))
    marks.append(svg.circle(*frame.point(steps[-1], mean[-1]), 2.6, f"dot {style.kind}"))
    return svg.arm_group(style.number, line.arm, marks)


def _rows(lines: Sequence[_Line]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [("arm", "step", "mean", "low", "high", "runs")]
    for line in lines:
        for step, *values in zip(line.steps, line.mean, line.low, line.high, strict=True):
            rows.append((line.arm, f"{step:g}", *(f"{value:.6g}" for value in values), line.runs))
    return rows
