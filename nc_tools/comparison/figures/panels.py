"""Small multiples, one panel per arm on shared axes: recall by class frequency, reliability, collapse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nc_tools.comparison.image_predictions import Reliability
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.read_experiment import ComparedRun
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import ECE, ECE_SCALED, NC1, mean_text
from nc_tools.plots import svg

_WIDTH, _HEIGHT = 260.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 34.0, 12.0, 22.0, 34.0
_GROUPS = 12
HOLDOUT_NC1 = "holdout/nc/nc1_pinv"

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One arm's picture with a line of figures beneath."""

    arm: str
    drawing: Markup
    caption: str


@dataclass(frozen=True)
class Frame:
    """A pair of axes on a panel of this size."""

    x: svg.Axis
    y: svg.Axis
    width: float = _WIDTH
    height: float = _HEIGHT

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Return where a pair of values lies on the panel."""
        return (
            _LEFT + self.x.place(x) * (self.width - _LEFT - _RIGHT),
            self.height - _BOTTOM - self.y.place(y) * (self.height - _TOP - _BOTTOM),
        )

    def points(self, curve: Curve) -> list[tuple[float, float]]:
        """Return where the points of a curve lie."""
        return [self.point(x, y) for x, y in curve]

    def axes(self, x_label: str, y_label: str, x_scale: float = 1.0, y_scale: float = 1.0) -> list[Markup]:
        """Draw grid, ticks and the words beside them."""
        bottom, right = self.height - _BOTTOM, self.width - _RIGHT
        parts = []
        for tick in self.y.ticks(4):
            y = self.point(self.x.low, tick)[1]
            parts += [
                svg.line(_LEFT, y, right, y, "grid"),
                svg.text(_LEFT - 5, y + 3.5, svg.svg_number(y_scale * tick), "tick", "end"),
            ]
        for tick in self.x.ticks(5):
            x = self.point(tick, self.y.low)[0]
            parts += [
                svg.line(x, bottom, x, bottom + 3, "zero"),
                svg.text(x, bottom + 14, svg.svg_number(x_scale * tick), "tick"),
            ]
        parts.append(svg.line(_LEFT, bottom, right, bottom, "zero"))
        parts.append(svg.text(right, self.height - 4, x_label, "label", "end"))
        parts.append(svg.text(0, 11, y_label, "label", "start"))
        return parts


def class_panels(comparison: Comparison) -> list[Panel]:
    """Draw recall against the number of training images, each arm over the baseline."""
    recalls = {arm: _recall(list(comparison.cells.get(arm, {}).values())) for arm in comparison.arms}
    known = {arm: points for arm, points in recalls.items() if points}
    if not known:
        return []
    counts = [count for points in known.values() for count, _ in points]
    spread = max(counts) > 1.5 * min(counts)
    frame = Frame(svg.axis_over(counts, log=spread), svg.Axis(0.0, 1.0))
    reference = _grouped(known.get(comparison.baseline, []))
    panels = []
    for arm, points in known.items():
        parts = frame.axes("training images of the class", "recall, %", y_scale=100)
        if arm != comparison.baseline and reference:
            parts.append(svg.polyline(frame.points(reference), "curve reference"))
        parts += [svg.circle(*frame.point(count, value), 2.6, "dot one") for count, value in points]
        parts.append(svg.polyline(frame.points(_grouped(points)), "curve one"))
        rare, common = _grouped(points)[0][1], _grouped(points)[-1][1]
        caption = f"rarest {100 * rare:.0f} %, most frequent {100 * common:.0f} %"
        label = f"{arm}: recall by training images of the class; {caption}"
        panels.append(Panel(arm, svg.picture(_WIDTH, _HEIGHT, label, parts), caption))
    return panels


def reliability_panels(comparison: Comparison) -> list[Panel]:
    """Draw accuracy against confidence, before and after temperature scaling."""
    frame = Frame(svg.Axis(0.0, 1.0), svg.Axis(0.0, 1.0))
    panels = []
    for arm in comparison.arms:
        found = comparison.calibration.get(arm)
        if found is None:
            continue
        parts = frame.axes("confidence, %", "accuracy, %", 100, 100)
        parts.append(svg.polyline(frame.points([(0, 0), (1, 1)]), "ideal"))
        parts += _diagram(frame, found.before, "two")
        if found.after is not None:
            parts += _diagram(frame, found.after, "one")
        caption = f"ECE {mean_text(comparison, arm, ECE)} → {mean_text(comparison, arm, ECE_SCALED)} points"
        label = f"{arm}: reliability diagram; {caption}"
        panels.append(Panel(arm, svg.picture(_WIDTH, _HEIGHT, label, parts), caption))
    return panels


def collapse_panels(comparison: Comparison) -> list[Panel]:
    """Draw NC1 over epochs on a log scale: training set, hold-out, and the baseline's training set behind."""
    train = {arm: _curves(list(comparison.cells.get(arm, {}).values()), NC1) for arm in comparison.arms}
    holdout = {arm: _curves([run for run in comparison.runs if run.arm == arm], HOLDOUT_NC1) for arm in comparison.arms}
    everything = [point for found in (*train.values(), *holdout.values()) for curve in found for point in curve]
    if not everything:
        return []
    frame = Frame(
        svg.axis_over([x for x, _ in everything], margin=0.02),
        svg.axis_over([y for _, y in everything], log=True),
    )
    reference = _middle(train[comparison.baseline])
    panels = []
    for arm in comparison.arms:
        if not train[arm] and not holdout[arm]:
            continue
        parts = frame.axes("epoch", "NC1, log scale")
        if arm != comparison.baseline and reference:
            parts.append(svg.polyline(frame.points(reference), "curve reference"))
        for curves, kind in ((holdout[arm], "two"), (train[arm], "one")):
            if curves:
                parts.append(svg.polygon(frame.points(_band(curves)), f"band {kind}"))
                parts.append(svg.polyline(frame.points(_middle(curves)), f"curve {kind}"))
        last = [
            f"{name} {metric_info(NC1).value(_middle(curves)[-1][1])}"
            for name, curves in (("train", train[arm]), ("hold-out", holdout[arm]))
            if curves
        ]
        caption = f"last epoch: {', '.join(last)}"
        label = f"{arm}: NC1 over epochs; {caption}"
        panels.append(Panel(arm, svg.picture(_WIDTH, _HEIGHT, label, parts), caption))
    return panels


def _recall(runs: Sequence[ComparedRun]) -> list[tuple[float, float]]:
    """Mean recall of each class over runs, by its training count, rarest first, without absent classes."""
    sums: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        if run.per_class is not None:
            found = run.per_class
            for name, count, value in zip(found.classes, found.train_counts, found.recall, strict=True):
                if math.isfinite(value):
                    sums.setdefault(name, []).append((max(float(count), 1.0), value))
    means = [(sum(c for c, _ in v) / len(v), sum(r for _, r in v) / len(v)) for v in sums.values()]
    return sorted(means)


def _grouped(points: Curve) -> list[tuple[float, float]]:
    """Means of neighboring classes, so that many classes make a line; classes of one count share a group."""
    size = max(1, math.ceil(len(points) / _GROUPS))
    groups: list[list[tuple[float, float]]] = []
    for index, point in enumerate(points):
        same = bool(groups) and groups[-1][-1][0] == point[0]
        if same or (index % size and groups):
            groups[-1].append(point)
        else:
            groups.append([point])
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _diagram(frame: Frame, found: Reliability, kind: str) -> list[Markup]:
    total = max(float(found.count.sum()), 1.0)
    places = [
        (confidence / count, correct / count, count / total)
        for count, confidence, correct in zip(found.count, found.confidence, found.correct, strict=True)
        if count > 0
    ]
    parts = [svg.polyline(frame.points([(x, y) for x, y, _ in places]), f"curve {kind}")]
    for x, y, share in places:
        title = f"{100 * share:.1f} % of the images: confidence {100 * x:.0f} %, accuracy {100 * y:.0f} %"
        parts.append(svg.circle(*frame.point(x, y), 2 + 7 * math.sqrt(share), f"dot {kind}", title))
    return parts


def _curves(runs: Sequence[ComparedRun], key: str) -> list[Curve]:
    found: list[Curve] = []
    for run in runs:
        points = run.curves.get(key, ())
        curve = [(float(step), value) for step, value in points if math.isfinite(value) and value > 0]
        if curve and run.finished:
            found.append(curve)
    return found


def _middle(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Geometric mean over runs at each step, as befits a log scale."""
    at = _by_step(curves)
    return [(step, math.exp(sum(map(math.log, values)) / len(values))) for step, values in at]


def _band(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """The outline from the lowest to the highest run."""
    at = _by_step(curves)
    return [(step, max(values)) for step, values in at] + [(step, min(values)) for step, values in reversed(at)]


def _by_step(curves: Sequence[Curve]) -> list[tuple[float, list[float]]]:
    values: dict[float, list[float]] = {}
    for curve in curves:
        for step, value in curve:
            values.setdefault(step, []).append(value)
    return sorted(values.items())
