"""Forest plots: one row per arm with its paired difference, its interval, and every seed as a dot.

Positions are percentages, so that a row stretches with the page while marks and words keep their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nc_tools.comparison.figures.figure_data import csv_link
from nc_tools.comparison.metric_info import MetricInfo, metric_info
from nc_tools.comparison.result import Comparison, Family, Verdict
from nc_tools.comparison.statistics import PairedDifference
from nc_tools.comparison.wording import difference_text, p_text
from nc_tools.plots import svg
from nc_tools.plots.axis import Axis, axis_over

_HEIGHT = 46
_MIDDLE = 18
_DOTS = 35


@dataclass(frozen=True)
class ForestRow:
    """One row: names and numbers as text, with the drawing between them."""

    arm: str
    against: str
    verdict: str
    numbers: str
    p: str
    drawing: Markup


@dataclass(frozen=True)
class Forest:
    """A whole plot: its metric, its rows, the axis beneath, the arms without a difference, and the data as CSV."""

    metric: MetricInfo
    rows: tuple[ForestRow, ...]
    axis: Markup
    absent: tuple[str, ...]
    data: Markup


@dataclass(frozen=True)
class _Entry:
    arm: str
    against: str
    paired: PairedDifference
    verdict: Verdict
    p: str


def family_forest(family: Family, *, name_reference: bool = False) -> Forest:
    """Draw a family of tests; the verdict is shown by shape and word, and repeated by color."""
    entries = [
        _Entry(
            test.arm,
            test.reference if name_reference else "",
            test.paired,
            family.verdict(test),
            f"Holm p {p_text(test.p_holm)}" if test.p_holm is not None else test.paired.note,
        )
        for test in family.tests
        if test.paired is not None
    ]
    absent = tuple(test.arm for test in family.tests if test.paired is None)
    name = "differences to the reference" if name_reference else "differences"
    return _forest(metric_info(family.metric), entries, absent, csv_link(name, _family_rows(family)))


def _family_rows(family: Family) -> list[tuple[object, ...]]:
    """Return a family's differences as a table, the header first: an interval's ends are empty where there is none."""
    table: list[tuple[object, ...]] = [("arm", "reference", "difference", "low", "high", "p_holm", "verdict", "pairs")]
    for test in family.tests:
        if test.paired is not None:
            p = "" if test.p_holm is None else f"{test.p_holm:.6g}"
            numbers = (*_interval_texts(test.paired), p)
            table.append((test.arm, test.reference, *numbers, family.verdict(test), test.paired.n))
    return table


def metric_forest(comparison: Comparison, key: str) -> Forest | None:
    """Draw a secondary metric without verdicts, since its p values are not adjusted; None if no arm has it."""
    entries, absent = [], []
    table: list[tuple[object, ...]] = [("arm", "reference", "difference", "low", "high", "pairs")]
    for arm in comparison.arms:
        row = comparison.row(arm, key)
        if arm == comparison.baseline or row is None:
            continue
        if row.paired is None and arm in comparison.cells:
            absent.append(arm)
        elif row.paired is not None:
            entries.append(_Entry(arm, "", row.paired, "open", ""))
            table.append((arm, comparison.baseline, *_interval_texts(row.paired), row.paired.n))
    if not entries:
        return None
    return _forest(metric_info(key), entries, tuple(absent), csv_link(f"differences {key}", table))


def _interval_texts(pair: PairedDifference) -> tuple[str, str, str]:
    """Return mean and ends of an interval as text; "" for an end that does not exist."""
    mean, low, high = ("" if number is None else f"{number:.6g}" for number in (pair.mean, pair.low, pair.high))
    return mean, low, high


def _forest(metric: MetricInfo, entries: Sequence[_Entry], absent: tuple[str, ...], data: Markup) -> Forest:
    axis = _axis([entry.paired for entry in entries])
    ticks = axis.ticks()
    rows = tuple(
        ForestRow(
            entry.arm,
            entry.against,
            entry.verdict,
            difference_text(entry.paired, metric),
            entry.p,
            _draw(entry, metric, axis, ticks),
        )
        for entry in entries
    )
    return Forest(metric, rows, _axis_drawing(metric, axis, ticks), absent, data)


def _axis(pairs: Sequence[PairedDifference]) -> Axis:
    """Return an axis over all differences and intervals, but clip an interval far wider than the others (two seeds)."""
    widths = sorted(pair.high - pair.low for pair in pairs if pair.high is not None and pair.low is not None)
    limit = 4 * widths[len(widths) // 2] if widths else 0.0
    values = [0.0]
    for pair in pairs:
        values.extend(pair.differences)
        if pair.low is not None and pair.high is not None:
            half = min(pair.high - pair.low, limit) / 2
            values.extend((pair.mean - half, pair.mean + half))
    return axis_over(values, margin=0.08)


def _draw(entry: _Entry, metric: MetricInfo, axis: Axis, ticks: Sequence[float]) -> Markup:
    pair, zero = entry.paired, axis.place(0.0)
    parts = [_better_half(metric, zero)]
    parts += [svg.line(_x(axis, t), 0, _x(axis, t), "100%", "grid") for t in ticks]
    parts.append(svg.line(svg.percent(zero), 0, svg.percent(zero), "100%", "zero"))
    if pair.n > 1:
        parts += [
            svg.circle(_x(axis, d), _DOTS, 2.2, "seed", f"one seed: {metric.difference(d)}") for d in pair.differences
        ]
    if pair.low is not None and pair.high is not None:
        parts.append(svg.line(_x(axis, pair.low), _MIDDLE, _x(axis, pair.high), _MIDDLE, f"interval {entry.verdict}"))
        for end, sign in ((pair.low, -1), (pair.high, 1)):
            parts.append(_end(axis, end, sign, entry.verdict))
    parts.append(_mark(_x(axis, pair.mean), entry.verdict))
    label = f"{entry.arm}: {difference_text(pair, metric)}"
    return Markup('<svg class="row" height="{}" role="img" aria-label="{}">{}</svg>').format(
        _HEIGHT, label, svg.joined(parts)
    )


def _end(axis: Axis, end: float, sign: int, verdict: str) -> Markup:
    """Return a cap where the interval ends, or an arrow if it ends outside the figure."""
    beyond = end < axis.low or end > axis.high
    shape = f"M{-6 * sign},-4 L0,0 L{-6 * sign},4" if beyond else "M0,-4 L0,4"
    return _at(_x(axis, end), Markup('<path d="{}" class="interval {}"/>').format(shape, verdict))


def _mark(x: str, verdict: str) -> Markup:
    shapes = {
        "better": '<path d="M0,-7 L7,5 L-7,5 Z" class="mark better"/>',
        "worse": '<path d="M0,7 L7,-5 L-7,-5 Z" class="mark worse"/>',
        "open": '<circle r="5" class="mark open"/>',
    }
    return _at(x, Markup(shapes[verdict]))  # noqa: S704 - constants above


def _at(x: str, shape: Markup) -> Markup:
    return Markup('<svg x="{}" y="{}" overflow="visible">{}</svg>').format(x, _MIDDLE, shape)


def _better_half(metric: MetricInfo, zero: float) -> Markup:
    if metric.direction == "neither":
        return Markup("")
    start, width = (zero, 1 - zero) if metric.direction == "higher" else (0.0, zero)
    return svg.rect(svg.percent(start), 0, svg.percent(width), "100%", "better-half")


def _axis_drawing(metric: MetricInfo, axis: Axis, ticks: Sequence[float]) -> Markup:
    scale = 100.0 if metric.unit == "points" else 1.0
    parts = [svg.text(_x(axis, t), 14, _tick(scale * t), "tick") for t in ticks]
    if metric.direction != "neither":
        left, right = ("← worse", "better →") if metric.direction == "higher" else ("← better", "worse →")
        parts += [svg.text(0, 32, left, "way", "start"), svg.text("100%", 32, right, "way", "end")]
    return Markup('<svg class="row" height="38" aria-hidden="true">{}</svg>').format(svg.joined(parts))


def _tick(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:+.3g}".replace("-", "−")


def _x(axis: Axis, value: float) -> str:
    return svg.percent(axis.place(value))
