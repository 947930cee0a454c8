"""Figures of a comparison: forest plots and panels per arm show the right values in the right places."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from nc_tools.comparison import ComparedRun, Experiment, RecallByClass, compare_runs
from nc_tools.comparison.figures.class_recall import class_panels
from nc_tools.comparison.figures.collapse_curves import collapse_panels
from nc_tools.comparison.figures.forest import family_forest, metric_forest
from nc_tools.comparison.figures.reliability_diagrams import reliability_panels
from nc_tools.comparison.image_predictions import BINS, Reliability
from nc_tools.comparison.result import ArmReliability

PRIMARY = "test/gen/balanced_accuracy"
NLL = "test/cal/nll"
ARMS = {"linear": [0.70, 0.71, 0.69], "up": [0.75, 0.762, 0.741], "down": [0.60, 0.62, 0.595]}


def compared(metric=PRIMARY, **more):
    runs = [
        ComparedRun(arm, seed, 0, "FINISHED", {metric: value}, **more)
        for arm, values in ARMS.items()
        for seed, value in enumerate(values)
    ]
    return compare_runs(runs, "linear", experiment=Experiment(primary=metric))


def mark(drawing):
    """The position of the row's mark, in per cent: the last nested picture."""
    return float(re.findall(r'<svg x="([\d.]+)%"', drawing)[-1])


def zero(drawing):
    return float(re.search(r'<line x1="([\d.]+)%"[^>]*class="zero"', drawing).group(1))


def tinted(drawing):
    start, width = re.search(r'<rect x="([\d.]+)%" y="0.00" width="([\d.]+)%"', drawing).groups()
    return float(start), float(start) + float(width)


@pytest.mark.parametrize("metric", [PRIMARY, NLL])
def test_a_forest_puts_larger_values_right_and_tints_the_better_side(metric):
    plot = family_forest(compared(metric).family)
    up, down = plot.rows
    assert mark(up.drawing) > zero(up.drawing) > mark(down.drawing)
    side = tinted(up.drawing)
    if metric == PRIMARY:
        assert side == pytest.approx((zero(up.drawing), 100))
        assert re.search(r'"start">← worse<.*"end">better →<', plot.axis)
    else:
        assert side == pytest.approx((0, zero(up.drawing)))
        assert re.search(r'"start">← better<.*"end">worse →<', plot.axis)


def test_a_forest_of_a_measure_that_does_not_judge_names_no_side():
    runs = [
        ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: value, "train/nc/nc1_pinv": 1 + value})
        for arm, values in ARMS.items()
        for seed, value in enumerate(values)
    ]
    plot = metric_forest(compare_runs(runs, "linear"), "train/nc/nc1_pinv")
    assert "better" not in plot.axis + "".join(row.drawing for row in plot.rows)


def test_every_seed_is_a_dot():
    row = family_forest(compared().family).rows[0]
    assert re.findall(r"one seed: ([+\d.]+)", row.drawing) == ["+5.0", "+5.2", "+5.1"]


def test_recall_rises_upwards_and_rare_classes_lie_left():
    recall = RecallByClass(("rare", "common", "absent"), (10, 1000, 5), (50, 50, 0), (0.2, 0.9, math.nan))
    panel = class_panels(compared(per_class=recall))[0]
    places = [tuple(map(float, place)) for place in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', panel.drawing)]
    assert len(places) == 2
    (left, low), (right, high) = places
    assert left < right
    assert low > high
    assert panel.caption == "rarest 20 %, most frequent 90 %"


def test_a_diagram_has_confidence_across_and_accuracy_upwards():
    one = np.zeros(BINS)
    count, confidence, correct = one.copy(), one.copy(), one.copy()
    count[13], confidence[13], correct[13] = 10, 9, 3
    comparison = replace(
        compared(), calibration={"up": ArmReliability(Reliability(count, confidence, correct), None, 1)}
    )
    (panel,) = reliability_panels(comparison)
    assert "confidence 90 %, accuracy 30 %" in panel.drawing
    x, y = map(float, re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', panel.drawing).groups())
    ends = re.search(r'points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+)" class="ideal"', panel.drawing)
    left, bottom, right, top = map(float, ends.groups())
    assert (x - left) / (right - left) == pytest.approx(0.9, abs=0.01)
    assert (bottom - y) / (bottom - top) == pytest.approx(0.3, abs=0.01)


def test_curves_of_unfinished_runs_are_not_averaged_in():
    curves = {"train/nc/nc1_pinv": ((1, 4.0), (2, 1.0))}
    comparison = compared(curves=curves)
    killed = ComparedRun("up", 9, 0, "KILLED", {}, {"holdout/nc/nc1_pinv": ((1, 100.0),)}, kind="holdout")
    panels = collapse_panels(replace(comparison, runs=(*comparison.runs, killed)))
    assert [panel.caption for panel in panels] == ["last epoch: train 1"] * 3
