"""Wrong labels over training: how many a model fits, against how many of those images it classifies correctly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.figures.panel import Panel, make_panel
from nc_tools.comparison.metric_table import FITTED, RECOVERED
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import mean_text
from nc_tools.plots import svg
from nc_tools.plots.axis import axis_over
from nc_tools.plots.panel_frame import Frame

Path = list[tuple[float, float]]


def memorization_panels(comparison: Comparison) -> list[Panel]:
    """Draw the path of each arm through training, with the baseline's path behind it; none without known wrong labels.

    A path starts at the first measured epoch and ends with a dot at the last. It goes up while the model classifies
    mislabeled training images as their true class (early learning), and then down and to the right while it fits their
    wrong labels (memorization), as in figure 1 of Liu et al. (2020).
    """
    paths = {arm: _path(list(of_arm.values())) for arm, of_arm in comparison.cells.items()}
    points = [point for path in paths.values() for point in path]
    if not points:
        return []
    frame = Frame(
        axis_over([0.0, *(x for x, _ in points)], margin=0.04), axis_over([y for _, y in points], margin=0.06)
    )
    reference = paths.get(comparison.baseline, [])
    panels = []
    for arm, path in paths.items():
        if not path:
            continue
        parts = frame.axes("wrong labels fitted, %", "their images classified correctly, %", x_scale=100, y_scale=100)
        if arm != comparison.baseline and reference:
            parts.append(svg.polyline(frame.points(reference), "curve reference"))
        parts.append(svg.polyline(frame.points(path), "curve one"))
        parts.append(svg.circle(*frame.point(*path[-1]), 4, "dot one"))
        end = f"at the end {100 * path[-1][0]:.0f} % fitted, {100 * path[-1][1]:.0f} % correct"
        score = f"{comparison.primary.label} {mean_text(comparison, arm, comparison.primary.key)}"
        panels.append(make_panel(arm, ": wrong labels over training", f"{end}; {score}", frame, parts))
    return panels


def _path(runs: Sequence[ComparedRun]) -> Path:
    """Return the mean over runs of (fitted, recovered) at each step that all of them measured."""
    by_run = []
    for run in runs:
        fitted, recovered = dict(run.curves.get(FITTED, ())), dict(run.curves.get(RECOVERED, ()))
        pairs = {step: (fitted[step], recovered[step]) for step in fitted.keys() & recovered.keys()}
        finite = {step: pair for step, pair in pairs.items() if all(map(math.isfinite, pair))}
        if finite:
            by_run.append(finite)
    if not by_run:
        return []
    steps = sorted(set.intersection(*(set(run) for run in by_run)))
    return [(fmean(run[step][0] for run in by_run), fmean(run[step][1] for run in by_run)) for step in steps]
