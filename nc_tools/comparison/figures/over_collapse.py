"""What collapse goes with: accuracy, calibration, detection of the unknown and transfer, over measured NC1.

A term's weight says what was asked for, NC1 what came of it. Arms with one head, such as those of one loss term at
several weights, are joined to a curve; a control with another head stands beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nc_tools.comparison.figures.panels import Frame, Panel
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.pairing import seed_means
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import ECE, ECE_SCALED, PROBE
from nc_tools.plots import svg
from nc_tools.plots.label_placement import place_labels

LEAST_ARMS = 4
LEAST_JOINED = 4
_SPLITS = {"train": "training", "test": "test"}
_WIDTH, _HEIGHT = 360.0, 260.0
# One score of the logits and one of the features, fixed beforehand: the best of many would flatter.
_OOD = "test/ood/"
_OOD_SCORES = {"two": ("msp", "max_logit", "energy"), "one": ("knn", "mahalanobis")}
_SHORT = {"msp": "MSP", "max_logit": "MaxLogit", "energy": "Energy", "knn": "KNN", "mahalanobis": "Mahalanobis"}


@dataclass(frozen=True)
class Series:
    """One curve of a panel: how it is drawn ("one" or "two"), what it is called, and its metric."""

    kind: str
    name: str
    metric: str


@dataclass(frozen=True)
class CurvePoint:
    """One arm on one curve: its mean, every seed as (seed, NC1, value), and which classifier it has."""

    arm: str
    classifier: str
    x: float
    y: float
    seeds: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class CollapseRow:
    """The panels over NC1 of one split."""

    split: str
    panels: tuple[Panel, ...]


def over_collapse(comparison: Comparison) -> tuple[CollapseRow, ...]:
    """Draw a row of panels over the training set's NC1 and one over the test set's.

    Nothing where fewer than four arms have a value: three points make no curve. A measure that no run has is left out.
    """
    rows = []
    for split, called in _SPLITS.items():
        drawn = _panels(comparison, f"{split}/nc/nc1_pinv")
        if drawn:
            rows.append(CollapseRow(called, tuple(panel for _, panel in drawn)))
    return tuple(rows)


def over_collapse_document(comparison: Comparison) -> str:
    """Return the same panels as one SVG file that stands alone; "" where there are none."""
    rows = [(called, _panels(comparison, f"{split}/nc/nc1_pinv")) for split, called in _SPLITS.items()]
    rows = [(called, drawn) for called, drawn in rows if drawn]
    if not rows:
        return ""
    across, down = _WIDTH + 24, _HEIGHT + 60
    pieces = []
    for i, (called, drawn) in enumerate(rows):
        pieces.append(svg.text(12, i * down + 22, f"Over NC1 of {called} images", "row", "start"))
        for j, (parts, panel) in enumerate(drawn):
            title = svg.text(0, -4, panel.arm, "heading", "start")
            pieces.append(
                Markup('<g transform="translate({},{})">{}</g>').format(
                    svg.svg_number(12 + j * across), svg.svg_number(50 + i * down), svg.joined([title, *parts])
                )
            )
    width, height = svg.svg_number(max(len(drawn) for _, drawn in rows) * across), svg.svg_number(len(rows) * down)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{svg.joined(pieces)}</svg>\n'
    )


_STYLE = """text{font:11px system-ui,sans-serif;fill:#59636f}.heading{font-size:12.5px;font-weight:600;fill:#1a1f26}
.row{font-size:15px;font-weight:600;fill:#1a1f26}.name{fill:#1a1f26;paint-order:stroke;stroke:#fff;stroke-width:3px}
.grid{stroke:#d8dee5}.zero{stroke:#59636f}.curve{fill:none;stroke-width:2;stroke-linejoin:round}
.curve.one{stroke:#0068a8}.curve.two{stroke:#c04e00;stroke-dasharray:5 3}.dot.one{fill:#0068a8}
.dot.two{fill:#fff;stroke:#c04e00;stroke-width:1.5}.faint{opacity:.45}"""


def _panels(comparison: Comparison, collapse: str) -> list[tuple[list[Markup], Panel]]:
    """Draw the panels over one measure of collapse, each with its pieces for another drawing."""
    known = {arm: _positive(seed_means(cells, collapse)) for arm, cells in comparison.cells.items()}
    places = {arm: known[arm] for arm in comparison.arms if known.get(arm)}
    if len(places) < LEAST_ARMS:
        return []
    axis = svg.axis_over([x for seeds in places.values() for x in seeds.values()], log=True, margin=0.08)
    found = []
    for title, series in _shown(comparison):
        curves = {one: _points(comparison, places, one.metric) for one in series}
        curves = {one: points for one, points in curves.items() if len(points) >= LEAST_ARMS}
        if curves:
            found.append(_panel(title, axis, curves, comparison.baseline))
    return found


def _shown(comparison: Comparison) -> list[tuple[str, list[Series]]]:
    """Return the panels' titles and curves; those whose metrics nobody has come out empty later."""
    scaled = [Series("two", "as trained", ECE), Series("one", "after temperature scaling", ECE_SCALED)]
    ece = scaled if ECE_SCALED in comparison.metrics else [Series("one", "as trained", ECE)]
    primary = comparison.primary
    shown = [(primary.label, [Series("one", "", primary.key)]), (metric_info(ECE).label, ece)]
    sets = dict.fromkeys(k.split("/")[2] for k in comparison.metrics if k.startswith(_OOD) and k.endswith("/auroc"))
    for name in sets:
        series = [
            Series(kind, _SHORT[score], key)
            for kind, scores in _OOD_SCORES.items()
            for score in scores
            if (key := f"{_OOD}{name}/{score}/auroc") in comparison.metrics
        ]
        preferred = [next(s for s in series if s.kind == kind) for kind in dict.fromkeys(s.kind for s in series)]
        shown.append((f"unknown images ({name.replace('_', ' ')}), AUROC", preferred))
    return [*shown, (metric_info(PROBE).label, [Series("one", "", PROBE)])]


def _positive(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value > 0}


def _points(comparison: Comparison, places: Mapping[str, Mapping[int, float]], metric: str) -> list[CurvePoint]:
    """Pair NC1 and a metric by seed; means are geometric across, as befits the log scale. From least NC1 to most."""
    found = []
    for arm, across in places.items():
        values = seed_means(comparison.cells[arm], metric)
        seeds = tuple((seed, across[seed], values[seed]) for seed in across if seed in values)
        if seeds:
            x = math.exp(math.fsum(math.log(x) for _, x, _ in seeds) / len(seeds))
            found.append(
                CurvePoint(arm, _classifier(comparison, arm), x, math.fsum(y for _, _, y in seeds) / len(seeds), seeds)
            )
    return sorted(found, key=lambda point: point.x)


def _classifier(comparison: Comparison, arm: str) -> str:
    """Return what tells an arm's head, and what is done to it after training, from another's."""
    config = next(iter(comparison.cells[arm].values())).config
    return json.dumps([config.get("head"), config.get("second_stage")], sort_keys=True, default=str)


def _joined(points: Sequence[CurvePoint]) -> list[list[CurvePoint]]:
    """Return the curves: arms with the same classifier, from least NC1 to most."""
    groups: dict[str, list[CurvePoint]] = {}
    for point in points:
        groups.setdefault(point.classifier, []).append(point)
    return [group for group in groups.values() if len(group) >= LEAST_JOINED]


def _panel(
    title: str, axis: svg.Axis, curves: Mapping[Series, Sequence[CurvePoint]], baseline: str
) -> tuple[list[Markup], Panel]:
    shown = metric_info(next(iter(curves)).metric)
    scale = 100.0 if shown.unit == "points" or shown.key.startswith(_OOD) else 1.0
    values = [y for points in curves.values() for point in points for _, _, y in point.seeds]
    frame = Frame(axis, svg.axis_over(values, margin=0.12), _WIDTH, _HEIGHT)
    parts = frame.axes("NC1, log scale; more collapsed to the left", "", y_scale=scale)
    for series, points in curves.items():
        parts += [
            svg.circle(*frame.point(x, y), 2.2, f"dot {series.kind} faint", _told(point.arm, seed, x, y, scale, series))
            for point in points
            for seed, x, y in point.seeds
        ]
        parts += [
            svg.polyline(frame.points([(p.x, p.y) for p in group]), f"curve {series.kind}") for group in _joined(points)
        ]
        parts += [svg.circle(*frame.point(p.x, p.y), 4, f"dot {series.kind}", _mean(p, scale)) for p in points]
    parts += _key([series for series in curves if series.name])
    named = list(curves.values())[-1]  # the full dots, drawn on top
    parts += _names(frame, named, [p for points in curves.values() for p in points], baseline)
    caption = f"most collapsed: {_value(named[0], scale)}; least: {_value(named[-1], scale)}"
    return parts, Panel(title, svg.picture(_WIDTH, _HEIGHT, f"{title} over NC1; {caption}", parts), caption)


def _names(frame: Frame, named: Sequence[CurvePoint], everything: Sequence[CurvePoint], baseline: str) -> list[Markup]:
    """Write each arm's name beside its mean, off the other names and means."""
    marks = [frame.point(p.x, p.y) for p in everything]
    texts = [f"{p.arm} (baseline)" if p.arm == baseline else p.arm for p in named]
    top, bottom = frame.point(frame.x.low, frame.y.high)[1], frame.point(frame.x.low, frame.y.low)[1]
    places = place_labels([frame.point(p.x, p.y) for p in named], texts, marks, (0.0, top, frame.width, bottom))
    return [svg.text(x, y, text, "name", anchor) for text, (x, y, anchor) in zip(texts, places, strict=True)]


def _key(series: Sequence[Series]) -> list[Markup]:
    """Name the curves above the panel, each behind a piece of its line."""
    parts, start = [], 34.0
    for one in series:
        parts += [
            svg.line(start, 9, start + 22, 9, f"curve {one.kind}"),
            svg.circle(start + 11, 9, 3, f"dot {one.kind}"),
            svg.text(start + 28, 13, one.name, "label", "start"),
        ]
        start += 44 + 6.2 * len(one.name)
    return parts


def _value(point: CurvePoint, scale: float) -> str:
    return f"{point.arm} {scale * point.y:.1f}" if scale > 1 else f"{point.arm} {point.y:.3g}"


def _mean(point: CurvePoint, scale: float) -> str:
    return f"{_value(point, scale)} at NC1 {point.x:.3g}, mean of {len(point.seeds)} seeds"


def _told(arm: str, seed: int, x: float, y: float, scale: float, series: Series) -> str:
    name = f", {series.name}" if series.name else ""
    return f"{arm}, seed {seed}{name}: {scale * y:.4g} at NC1 {x:.3g}"
