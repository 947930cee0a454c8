"""Accuracy over confidence before and after temperature scaling, one panel per arm."""

from __future__ import annotations

import math

from markupsafe import Markup

from nc_tools.comparison.arm_models import ArmReliability
from nc_tools.comparison.figures.figure_data import DataFigure, csv_link, small_figure
from nc_tools.comparison.image_predictions import Reliability
from nc_tools.comparison.prediction_entries import ECE, ECE_SCALED
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import mean_text
from nc_tools.plots import svg
from nc_tools.plots.axis import Axis
from nc_tools.plots.panel_frame import Frame


def reliability_panels(comparison: Comparison) -> list[DataFigure]:
    """Draw the reliability diagram of each arm with recorded predictions."""
    frame = Frame(Axis(0.0, 1.0), Axis(0.0, 1.0))
    panels = []
    for arm in comparison.arms:
        calibration = comparison.calibration.get(arm)
        if calibration is None:
            continue
        parts = frame.axes("confidence, %", "accuracy, %", x_scale=100, y_scale=100)
        parts.append(svg.polyline(frame.points([(0, 0), (1, 1)]), "ideal"))
        parts += _diagram(frame, calibration.before, "two")
        if calibration.after is not None:
            parts += _diagram(frame, calibration.after, "one")
        errors = [mean_text(comparison, arm, key) for key in (ECE, ECE_SCALED) if key in comparison.metrics]
        caption = f"ECE {' → '.join(errors)} points" if errors else ""
        data = csv_link(f"reliability {arm}", _rows(arm, calibration))
        panels.append(small_figure(arm, ": reliability diagram", caption, frame, parts, data))
    return panels


def _rows(arm: str, calibration: ArmReliability) -> list[tuple[object, ...]]:
    """Return the bins as a table, the header first; bins without images are left out."""
    table: list[tuple[object, ...]] = [("arm", "scaling", "images", "mean confidence", "accuracy")]
    for scaling, bins in (("as trained", calibration.before), ("temperature", calibration.after)):
        for count, confidence, correct in _filled(bins):
            table.append((arm, scaling, f"{count:.0f}", f"{confidence / count:.6g}", f"{correct / count:.6g}"))
    return table


def _filled(bins: Reliability | None) -> list[tuple[float, float, float]]:
    """Return count, sum of confidences and number of right predictions of each bin that holds images."""
    if bins is None:
        return []
    sums = zip(bins.count.tolist(), bins.confidence.tolist(), bins.correct.tolist(), strict=True)
    return [(count, confidence, correct) for count, confidence, correct in sums if count > 0]


def _diagram(frame: Frame, bins: Reliability, kind: str) -> list[Markup]:
    total = max(float(bins.count.sum()), 1.0)
    points = [(confidence / count, correct / count, count / total) for count, confidence, correct in _filled(bins)]
    parts = [svg.polyline(frame.points([(x, y) for x, y, _ in points]), f"curve {kind}")]
    for x, y, share in points:
        title = f"{100 * share:.1f} % of the images: confidence {100 * x:.0f} %, accuracy {100 * y:.0f} %"
        parts.append(svg.circle(*frame.point(x, y), 2 + 7 * math.sqrt(share), f"dot {kind}", title))
    return parts
