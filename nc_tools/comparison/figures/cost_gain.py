"""What an arm gains over what it costs: its mean on the primary metric over its training time."""

from __future__ import annotations

from nc_tools.comparison.cost_table import most_side_by_side
from nc_tools.comparison.figures.arm_styles import arm_styles
from nc_tools.comparison.figures.figure_data import DataFigure, csv_link
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.result import Comparison
from nc_tools.plots import svg
from nc_tools.plots.axis import axis_over
from nc_tools.plots.label_placement import place_labels
from nc_tools.plots.panel_frame import Frame, Margins

_SECONDS = "perf/seconds"
_MOST_NAMES = 14
_LONGEST_NAME = 24


def cost_figure(comparison: Comparison) -> DataFigure | None:
    """Draw each arm's mean over its training time; None if fewer than two arms recorded the time."""
    primary, styles = comparison.primary, arm_styles(comparison)
    points = {}
    for arm in comparison.arms:
        cost, gain = comparison.row(arm, _SECONDS), comparison.row(arm, primary.key)
        if cost is not None and gain is not None and cost.mean is not None and gain.mean is not None and cost.mean > 0:
            points[arm] = (cost.mean, gain.mean)
    if len(points) < 2:
        return None
    seconds = [x for x, _ in points.values()]
    x_axis = axis_over(seconds, log=max(seconds) > 20 * min(seconds), margin=0.12)
    frame = Frame(
        x_axis, axis_over([y for _, y in points.values()], margin=0.15), 480.0, 270.0, Margins(46.0, 16.0, 14.0, 34.0)
    )
    packed = most_side_by_side(comparison) > 1
    seconds_label = "training seconds of a run" + ", its share among runs side by side" * packed
    scale = 100.0 if primary.unit == "points" else 1.0
    parts = frame.axes(seconds_label, "", y_scale=scale)
    places = {arm: frame.point(*point) for arm, point in points.items()}
    shown = [arm for arm in places if styles[arm].shown][:_MOST_NAMES]
    names = [arm if len(arm) <= _LONGEST_NAME else f"{arm[: _LONGEST_NAME - 1]}…" for arm in shown]
    area = (frame.margins.left, 0.0, frame.width, frame.bottom)
    labels = place_labels([places[arm] for arm in shown], names, list(places.values()), area)
    written = {
        arm: svg.text(x, y, name, "name", anchor)
        for arm, name, (x, y, anchor) in zip(shown, names, labels, strict=True)
    }
    for arm, (x, y) in points.items():
        about = f"{arm}: {primary.value(y)} at {metric_info(_SECONDS).value(x)} seconds"
        marks = [svg.circle(*places[arm], 4.5, f"dot {styles[arm].kind}", about)]
        parts.append(svg.arm_group(styles[arm].number, arm, [*marks, *([written[arm]] if arm in written else [])]))
    title = f"{primary.label[:1].upper()}{primary.label[1:]} over training time"
    rows = [("arm", "seconds", primary.key), *((arm, f"{x:.6g}", f"{y:.6g}") for arm, (x, y) in points.items())]
    drawing = svg.picture(frame.width, frame.height, title, parts)
    return DataFigure(title, drawing, primary.reading, csv_link("cost", rows))
