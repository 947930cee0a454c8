"""Recall, or the coverage of prediction sets, over the number of training images of a class: a line for each arm."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from nc_tools.comparison.class_accuracy import ClassRow, class_rows
from nc_tools.comparison.figures.arm_styles import arm_styles
from nc_tools.comparison.figures.figure_data import DataFigure, csv_link
from nc_tools.comparison.metric_entry import CONFORMAL_WORDS, COVERAGE
from nc_tools.comparison.result import Comparison
from nc_tools.plots import svg
from nc_tools.plots.axis import Axis, axis_over
from nc_tools.plots.panel_frame import Curve, Frame, Margins

_GROUPS = 12
_MOST_DOTS = 1500


def class_figure(comparison: Comparison) -> DataFigure | None:
    """Draw recall over the number of training images; None without recall by class."""
    rows = class_rows(comparison)
    caption = "accuracy in per cent; rare classes on the left"
    return _by_frequency(comparison, rows, "Accuracy by frequency of the class", caption, "accuracy") if rows else None


def coverage_figures(comparison: Comparison) -> list[DataFigure]:
    """Draw how often the sets of each method hold a class, over its number of training images.

    Only the methods that the runs recorded; a line shows the share that the sets were built to hold.
    """
    figures = []
    for method, words in CONFORMAL_WORDS.items():
        if rows := class_rows(comparison, method):
            title = f"{words[:1].upper()}{words[1:]}: coverage by frequency of the class"
            caption = f"in per cent, built for {100 * COVERAGE:.0f}; rare classes on the left"
            figures.append(_by_frequency(comparison, rows, title, caption, f"coverage of {words}", COVERAGE))
    return figures


def _by_frequency(
    comparison: Comparison, rows: Sequence[ClassRow], title: str, caption: str, name: str, target: float | None = None
) -> DataFigure:
    """Draw a share of each class's images: a dot for each class and a line of means of neighboring classes.

    On many classes there are lines only.
    """
    counts = [max(row.train_count, 1.0) for row in rows]
    values = [value for row in rows for value in row.by_arm.values()]
    low = max(0.0, min(values) - 0.05)
    across = axis_over(counts, log=max(counts) > 1.5 * min(counts))
    frame = Frame(across, Axis(low, max(1.0, low + 0.1)), 480.0, 270.0, Margins(40.0, 12.0, 12.0, 34.0))
    styles = arm_styles(comparison)
    parts = frame.axes("training images of the class, log scale" if frame.x.log else "training images of the class", "",
                       y_scale=100)  # fmt: skip
    if target is not None and target > low:
        parts.append(svg.polyline(frame.points([(across.low, target), (across.high, target)]), "ideal"))
    ends = []
    with_dots = len(rows) * len(comparison.arms) <= _MOST_DOTS
    for arm in sorted(comparison.arms, key=lambda arm: arm == comparison.baseline):  # the baseline on top
        points = sorted((max(row.train_count, 1.0), row.by_arm[arm]) for row in rows if arm in row.by_arm)
        if not points:
            continue
        style, groups = styles[arm], _group_means(points)
        marks = [svg.polyline(frame.points(groups), f"curve {style.kind}")]
        if with_dots:
            marks += [_dot(frame, arm, row, style.kind) for row in rows if arm in row.by_arm]
        parts.append(svg.arm_group(style.number, arm, marks))
        ends.append(f"{arm}: rarest {100 * groups[0][1]:.0f} %, most frequent {100 * groups[-1][1]:.0f} %")
    drawing = frame.hover_picture(f"{title}; {'; '.join(ends)}", parts, unit=" %", y_scale=100)
    return DataFigure(title, drawing, caption, csv_link(f"{name} by class", class_table_rows(comparison, rows)))


def class_table_rows(comparison: Comparison, rows: Sequence[ClassRow]) -> list[tuple[object, ...]]:
    """Return the table of a share by class, the header first; an empty cell for an arm without a value."""
    arms = [arm for arm in comparison.arms if any(arm in row.by_arm for row in rows)]
    table: list[tuple[object, ...]] = [("class", "training images", *arms)]
    for row in rows:
        cells = (f"{row.by_arm[arm]:.4g}" if arm in row.by_arm else "" for arm in arms)
        table.append((row.name, f"{row.train_count:g}", *cells))
    return table


def _dot(frame: Frame, arm: str, row: ClassRow, kind: str) -> Markup:
    value = row.by_arm[arm]
    about = f"{arm}, class {row.name}: {100 * value:.1f} %"
    return svg.circle(*frame.point(max(row.train_count, 1.0), value), 2.4, f"dot {kind}", about)


def _group_means(points: Curve) -> list[tuple[float, float]]:
    """Return the mean (count, value) of each group of neighboring classes; classes with equal counts share a group."""
    size = max(1, math.ceil(len(points) / _GROUPS))
    groups: list[list[tuple[float, float]]] = []
    for index, point in enumerate(points):
        same_count = bool(groups) and groups[-1][-1][0] == point[0]
        if same_count or (index % size and groups):
            groups[-1].append(point)
        else:
            groups.append([point])
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
