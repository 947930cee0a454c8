"""Wrong labels over training: how many a model fits, against how many of those images it classifies correctly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.figures.figure_data import DataFigure, csv_link, small_figure
from nc_tools.comparison.metric_table import FITTED, RECOVERED
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.summary_table import mean_text
from nc_tools.plots import svg
from nc_tools.plots.axis import axis_over
from nc_tools.plots.panel_frame import Frame

Path = list[tuple[int, float, float]]
"""(step, share fitted, share classified correctly) at each step."""


def memorization_panels(comparison: Comparison) -> list[DataFigure]:
    """Draw the path of each arm through training, with the baseline's path behind it; none without known wrong labels.

    A path starts at the first measured epoch and ends with a dot at the last. It goes up while the model classifies
    mislabeled training images as their true class (early learning), and then down and to the right while it fits their
    wrong labels (memorization), as in figure 1 of Liu et al. (2020), "Early-learning regularization prevents
    memorization of noisy labels".
    """
    paths = {arm: _path(list(of_arm.values())) for arm, of_arm in comparison.cells.items()}
    points = [(x, y) for path in paths.values() for _, x, y in path]
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
            parts.append(svg.polyline(frame.points(_places(reference)), "curve reference"))
        parts.append(svg.polyline(frame.points(_places(path)), "curve one"))
        parts.append(svg.circle(*frame.point(*path[-1][1:]), 4, "dot one"))
        end = f"at the end {100 * path[-1][1]:.0f} % fitted, {100 * path[-1][2]:.0f} % correct"
        score = f"{comparison.primary.label} {mean_text(comparison, arm, comparison.primary.key)}"
        data = csv_link(f"wrong labels {arm}", _rows(arm, path))
        panels.append(small_figure(arm, ": wrong labels over training", f"{end}; {score}", frame, parts, data))
    return panels


def _path(runs: Sequence[ComparedRun]) -> Path:
    """Return the mean over runs at each step that all of them measured."""
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
    return [(step, fmean(run[step][0] for run in by_run), fmean(run[step][1] for run in by_run)) for step in steps]


def _places(path: Path) -> list[tuple[float, float]]:
    return [(fitted, recovered) for _, fitted, recovered in path]


def _rows(arm: str, path: Path) -> list[tuple[object, ...]]:
    table: list[tuple[object, ...]] = [("arm", "step", "wrong labels fitted", "classified correctly")]
    return table + [(arm, step, f"{fitted:.6g}", f"{recovered:.6g}") for step, fitted, recovered in path]
