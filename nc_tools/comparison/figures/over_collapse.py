"""Accuracy, calibration, outlier detection and transfer over measured NC1.

The weight of a loss term is a setting; NC1 is the collapse that results from it. Arms with the same head, such as those
of one loss term at several weights, are joined to a curve; an arm with another head is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nc_tools.comparison.figures.collapse_points import (
    MIN_ARMS,
    CurvePoint,
    Series,
    curve_points,
    joined_groups,
    nc1_by_arm,
    panel_series,
)
from nc_tools.comparison.figures.figure_data import DataFigure, csv_link, small_figure
from nc_tools.comparison.result import Comparison
from nc_tools.plots import svg
from nc_tools.plots.axis import Axis, axis_over
from nc_tools.plots.label_placement import place_labels
from nc_tools.plots.panel_frame import Frame, curve_key
from nc_tools.plots.standalone import svg_document

_SPLITS = {"train": "training", "test": "test"}
_WIDTH, _HEIGHT = 360.0, 260.0
_LONGEST_NAME = 24
# More dots than these hide the means; the data of the figure hold all of them.
_MOST_SEEDS = 400


@dataclass(frozen=True)
class PanelRow:
    """The panels over NC1 of one split's images."""

    split: str
    panels: tuple[DataFigure, ...]


def over_collapse(comparison: Comparison) -> tuple[PanelRow, ...]:
    """Draw a row of panels over the training set's NC1 and one over the test set's.

    A row needs four arms with a value: fewer make no curve. Metrics that no run has are left out.
    """
    rows = []
    for split, name in _SPLITS.items():
        panels = _panels(comparison, f"{split}/nc/nc1_pinv")
        if panels:
            rows.append(PanelRow(name, tuple(panel for _, panel in panels)))
    return tuple(rows)


def over_collapse_document(comparison: Comparison) -> str:
    """Return the same panels as one SVG file, or "" if there are none."""
    rows = [(name, _panels(comparison, f"{split}/nc/nc1_pinv", links=False)) for split, name in _SPLITS.items()]
    rows = [(name, panels) for name, panels in rows if panels]
    if not rows:
        return ""
    across, down = _WIDTH + 24, _HEIGHT + 60
    parts = []
    for i, (name, panels) in enumerate(rows):
        parts.append(svg.text(12, i * down + 22, f"Over NC1 of {name} images", "title", "start"))
        for j, (marks, panel) in enumerate(panels):
            heading = svg.text(0, -4, panel.title, "heading", "start")
            parts.append(svg.group(12 + j * across, 50 + i * down, [heading, *marks]))
    width = max(len(panels) for _, panels in rows) * across
    return svg_document(svg.picture(width, len(rows) * down, "Metrics over measured NC1", parts))


def _panels(comparison: Comparison, collapse: str, *, links: bool = True) -> list[tuple[list[Markup], DataFigure]]:
    """Return the panels over one NC1 key, each with its marks, from which the standalone file draws it again."""
    nc1 = nc1_by_arm(comparison, collapse)
    if not nc1:
        return []
    axis = axis_over([x for seeds in nc1.values() for x in seeds.values()], log=True, margin=0.08)
    panels = []
    for title, all_series in panel_series(comparison):
        curves = {series: curve_points(comparison, nc1, series.metric) for series in all_series}
        curves = {series: points for series, points in curves.items() if len(points) >= MIN_ARMS}
        if curves:
            name = f"{next(iter(curves)).metric} over {collapse}"
            data = csv_link(name, _rows(curves)) if links else Markup("")
            panels.append(_panel(title, axis, curves, comparison.baseline, data))
    return panels


def _panel(
    title: str, axis: Axis, curves: Mapping[Series, Sequence[CurvePoint]], baseline: str, data: Markup
) -> tuple[list[Markup], DataFigure]:
    scale = next(iter(curves)).scale
    values = [y for points in curves.values() for point in points for _, _, y in point.seeds]
    frame = Frame(axis, axis_over(values, margin=0.12), _WIDTH, _HEIGHT)
    parts = frame.axes("NC1, log scale; more collapsed to the left", "", y_scale=scale)
    with_seeds = len(values) <= _MOST_SEEDS
    for series, points in curves.items():
        parts += [
            svg.circle(*frame.point(x, y), 2.2, f"dot {series.kind} faint", _seed_title(point.arm, seed, x, y, series))
            for point in points
            for seed, x, y in point.seeds
            if with_seeds
        ]
        parts += [
            svg.polyline(frame.points([(p.x, p.y) for p in group]), f"curve {series.kind}")
            for group in joined_groups(points)
        ]
        parts += [svg.circle(*frame.point(p.x, p.y), 4, f"dot {series.kind}", _mean_title(p, scale)) for p in points]
    parts += curve_key([(series.kind, series.name) for series in curves if series.name])
    labeled = list(curves.values())[-1]  # the filled dots, drawn on top
    parts += _labels(frame, labeled, [p for points in curves.values() for p in points], baseline)
    caption = f"most collapsed: {_value(labeled[0], scale)}; least: {_value(labeled[-1], scale)}"
    return parts, small_figure(title, " over NC1", caption, frame, parts, data)


def _rows(curves: Mapping[Series, Sequence[CurvePoint]]) -> list[tuple[object, ...]]:
    table: list[tuple[object, ...]] = [("metric", "arm", "seed", "nc1", "value")]
    for series, points in curves.items():
        for point in points:
            table += [(series.metric, point.arm, seed, f"{x:.6g}", f"{y:.6g}") for seed, x, y in point.seeds]
    return table


def _labels(
    frame: Frame, labeled: Sequence[CurvePoint], all_points: Sequence[CurvePoint], baseline: str
) -> list[Markup]:
    """Write each arm's name beside its mean, without overlap with other names and means."""
    marks = [frame.point(p.x, p.y) for p in all_points]
    names = [p.arm if len(p.arm) <= _LONGEST_NAME else f"{p.arm[: _LONGEST_NAME - 1]}…" for p in labeled]
    names = [f"{name} (baseline)" if p.arm == baseline else name for name, p in zip(names, labeled, strict=True)]
    top, bottom = frame.point(frame.x.low, frame.y.high)[1], frame.point(frame.x.low, frame.y.low)[1]
    places = place_labels([frame.point(p.x, p.y) for p in labeled], names, marks, (0.0, top, frame.width, bottom))
    return [svg.text(x, y, name, "name", anchor) for name, (x, y, anchor) in zip(names, places, strict=True)]


def _value(point: CurvePoint, scale: float) -> str:
    return f"{point.arm} {scale * point.y:.1f}" if scale > 1 else f"{point.arm} {point.y:.3g}"


def _mean_title(point: CurvePoint, scale: float) -> str:
    return f"{_value(point, scale)} at NC1 {point.x:.3g}, mean of {len(point.seeds)} seeds"


def _seed_title(arm: str, seed: int, x: float, y: float, series: Series) -> str:
    name = f", {series.name}" if series.name else ""
    return f"{arm}, seed {seed}{name}: {series.scale * y:.4g} at NC1 {x:.3g}"
