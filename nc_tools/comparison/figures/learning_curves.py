"""What the runs recorded over training: losses and accuracy, and collapse, each as one figure of all arms."""

from __future__ import annotations

from collections.abc import Sequence

from nc_tools.comparison.figures.arm_styles import arm_styles
from nc_tools.comparison.figures.figure_data import DataFigure
from nc_tools.comparison.figures.line_figure import line_figure
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.result import Comparison

# Keys, each with whether its axis is logarithmic.
_LEARNING = (
    ("holdout/gen/balanced_accuracy", False),
    ("train/loss", True),
    ("train/accuracy", False),
    ("holdout/cal/nll", True),
    ("holdout/cal/ece", False),
    ("train/noise/fitted", False),
)
_COLLAPSE = (
    ("train/nc/nc1_pinv", True),
    ("holdout/nc/nc1_pinv", True),
    ("train/nc/nc2_equiangular", False),
    ("train/nc/nc3_cosine", False),
    ("train/nc/cosine_rare", False),
    ("train/nc/cosine_frequent", False),
    ("head/minority_cosine", False),
    ("head/minority_norm_ratio", False),
    ("head/seli_weight", False),
    ("train/nc/seli_means", False),
)


def learning_curves(comparison: Comparison) -> list[DataFigure]:
    """Draw loss, accuracy and calibration over training, as far as they were recorded."""
    return _figures(comparison, _LEARNING)


def collapse_curves(comparison: Comparison) -> list[DataFigure]:
    """Draw the measures of collapse over training, as far as they were recorded."""
    return _figures(comparison, _COLLAPSE)


def _figures(comparison: Comparison, curves: Sequence[tuple[str, bool]]) -> list[DataFigure]:
    runs = {arm: [run for run in cells.values() if run.finished] for arm, cells in comparison.cells.items()}
    styles = arm_styles(comparison)
    figures = [line_figure(runs, metric_info(key), styles, log=log) for key, log in curves]
    return [figure for figure in figures if figure is not None]
