"""Figures of a comparison: forest plots and panels per arm show the right values in the right places."""

import inspect
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from support.saved_figures import saved_rows

from nc_tools.comparison import ComparedRun, Experiment, RecallByClass, compare_runs
from nc_tools.comparison.arm_models import ArmReliability
from nc_tools.comparison.cost_table import cost_bars
from nc_tools.comparison.figures.arm_styles import arm_styles
from nc_tools.comparison.figures.class_recall import class_figure, coverage_figures
from nc_tools.comparison.figures.cost_gain import cost_figure
from nc_tools.comparison.figures.forest import family_forest, metric_forest
from nc_tools.comparison.figures.learning_curves import collapse_curves, learning_curves
from nc_tools.comparison.figures.reliability_diagrams import reliability_panels
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.image_predictions import BINS, Reliability
from nc_tools.comparison.metric_entry import COVERAGE
from nc_tools.metrics import fit_conformal

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


def test_the_data_of_a_forest_are_its_differences():
    comparison = compared_with({NLL: {"linear": 1.0, "up": 0.5, "down": 2.0}})
    header, up, down = saved_rows(family_forest(comparison.family))
    assert header == ["arm", "reference", "difference", "low", "high", "p_holm", "verdict", "pairs"]
    test = comparison.test("up")
    assert up[:3] == ["up", "linear", "0.051"]
    assert [float(text) for text in up[3:6]] == pytest.approx([test.paired.low, test.paired.high, test.p_holm], 1e-5)
    assert up[6:] == ["better", "3"]
    assert down[6] == "worse"
    # Without verdicts, since the p values of other metrics are not adjusted.
    rows = saved_rows(metric_forest(comparison, NLL))
    assert [(*row[:3], row[-1]) for row in rows[1:]] == [
        ("up", "linear", "-0.5", "3"), ("down", "linear", "1", "3"),
    ]  # fmt: skip


def test_every_seed_is_a_dot():
    row = family_forest(compared().family).rows[0]
    assert re.findall(r"one seed: ([+\d.]+)", row.drawing) == ["+5.0", "+5.2", "+5.1"]


def test_recall_rises_upwards_and_rare_classes_lie_left():
    recall = RecallByClass(("rare", "common", "absent"), (10, 1000, 5), (50, 50, 0), (0.2, 0.9, math.nan))
    figure = class_figure(compared(per_class=recall))
    marks = of_arm(figure.drawing, "up")
    dots = {name: tuple(map(float, place)) for *place, name in re.findall(
        r'cx="([\d.]+)" cy="([\d.]+)"[^>]*><title>up, class (\w+)', marks)}  # fmt: skip
    assert dots.keys() == {"rare", "common"}
    assert dots["rare"][0] < dots["common"][0]
    assert dots["rare"][1] > dots["common"][1]
    assert "up: rarest 20 %, most frequent 90 %" in figure.drawing
    assert saved_rows(figure) == [["class", "training images", "linear", "up", "down"],
                             ["common", "1000", *["0.9"] * 3], ["rare", "10", *["0.2"] * 3]]  # fmt: skip


def test_the_coverage_of_each_class_is_drawn_for_each_method_beside_the_share_it_was_built_for():
    recall = RecallByClass(
        ("rare", "common"), (10, 1000), (50, 50), (0.2, 0.9), {"aps": (0.6, 0.95), "thr": (0.5, 1.0)}
    )
    thr, aps = coverage_figures(compared(per_class=recall))
    assert (thr.title, aps.title[:8]) == ("THR sets: coverage by frequency of the class", "APS sets")
    assert saved_rows(aps)[1:] == [["common", "1000", *["0.95"] * 3], ["rare", "10", *["0.6"] * 3]]
    assert "up: rarest 60 %, most frequent 95 %" in aps.drawing
    line = [float(y) for y in re.findall(r",([\d.]+)", re.search(r'points="([^"]*)" class="ideal"', aps.drawing)[1])]
    dots = sorted(float(y) for y in re.findall(r'cy="([\d.]+)"', of_arm(aps.drawing, "up")))
    assert line[0] == line[1]
    assert (dots[1] - line[0]) / (dots[1] - dots[0]) == pytest.approx((0.9 - 0.6) / (0.95 - 0.6), abs=0.01)
    assert inspect.signature(fit_conformal).parameters["miscoverage"].default == pytest.approx(1 - COVERAGE)
    assert coverage_figures(compared()) == []


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
    assert saved_rows(panel) == [["arm", "scaling", "images", "mean confidence", "accuracy"],
                            ["up", "as trained", "10", "0.9", "0.3"]]  # fmt: skip


def test_curves_of_unfinished_runs_are_not_averaged_in():
    curves = {"train/nc/nc1_pinv": ((1, 4.0), (2, 1.0))}
    comparison = compared(curves=curves)
    killed = ComparedRun("up", 9, 0, "KILLED", {}, {"holdout/nc/nc1_pinv": ((1, 100.0),)}, kind="holdout")
    (figure,) = collapse_curves(replace(comparison, runs=(*comparison.runs, killed)))
    assert figure.title == "Train NC1"
    assert {tuple(row) for row in saved_rows(figure)[1:]} == {
        (arm, step, *[value] * 3, "3") for arm in ARMS for step, value in (("1", "4"), ("2", "1"))
    }


def test_a_curve_is_the_mean_of_the_steps_that_all_runs_have_and_can_be_read_back():
    curves = [((1, 0.5), (2, 1.0), (3, 2.0)), ((1, 0.5), (3, 4.0)), ((1, 0.5), (3, math.nan), (4, 9.0))]
    runs = [ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: 0.7 + 0.01 * seed}, {"train/loss": curves[seed]})
            for arm in ("linear", "up") for seed in range(2)]  # fmt: skip
    (figure,) = learning_curves(compare_runs(runs, "linear"))
    assert saved_rows(figure)[1:3] == [["linear", "1", "0.5", "0.5", "0.5", "2"],
                                  ["linear", "3", f"{8 ** 0.5:.6g}", "2", "4", "2"]]  # fmt: skip
    # The script of the page reads values from places: the scales in the picture turn the last point into the value.
    left, top, right, bottom = map(float, re.search(r'data-area="(.*?)"', figure.drawing)[1].split())
    scales = [list(map(float, re.search(rf'data-{axis}="(.*?)"', figure.drawing)[1].split())) for axis in "xy"]
    x, y = map(float, re.search(r'polyline points="[^"]* ([\d.]+),([\d.]+)"', of_arm(figure.drawing, "up")).groups())
    shares = (x - left) / (right - left), (bottom - y) / (bottom - top)
    read = [low * (high / low) ** share if log else low + share * (high - low)
            for (low, high, log), share in zip(scales, shares, strict=True)]  # fmt: skip
    assert read == pytest.approx([3, 8**0.5], rel=0.01)
    assert learning_curves(compare_runs([replace(run, curves={}) for run in runs], "linear")) == []


def test_cost_is_across_and_the_primary_metric_upwards():
    figure = cost_figure(compared_with({"perf/seconds": {"linear": 10.0, "up": 30.0, "down": 20.0}}))
    places = {arm: tuple(map(float, re.search(r'cx="([\d.]+)" cy="([\d.]+)"', of_arm(figure.drawing, arm)).groups()))
              for arm in ARMS}  # fmt: skip
    assert places["linear"][0] < places["down"][0] < places["up"][0]
    assert places["up"][1] < places["linear"][1] < places["down"][1]
    assert "its share among" not in figure.drawing
    assert cost_figure(compared()) is None


def test_seconds_that_runs_shared_are_not_shown_as_those_of_runs_alone():
    seconds = {"linear": 10.0, "up": 30.0, "down": 20.0}
    packed = compared_with({"perf/seconds": seconds, "perf/side_by_side": {"linear": 24.0, "up": 24.0, "down": 1.0}})
    assert "training seconds of a run, its share among runs side by side" in cost_figure(packed).drawing
    said = "Up to 24 runs trained side by side in one process."
    assert said in comparison_html(packed)
    (bar,) = (bar for bar in cost_bars(packed) if bar.arm == "up")
    assert bar.texts == ("30", "24")
    alone = compared_with({"perf/seconds": seconds, "perf/side_by_side": dict.fromkeys(seconds, 1.0)})
    assert "side by side in one process" not in comparison_html(alone)


def test_of_many_arms_the_baseline_and_the_best_are_shown_at_first():
    runs = [ComparedRun(f"arm_{i}", seed, 0, "FINISHED", {PRIMARY: i / 100 + seed / 1000})
            for i in range(40) for seed in range(2)]  # fmt: skip
    styles = arm_styles(compare_runs(runs, "arm_0"))
    assert {arm for arm, style in styles.items() if style.shown} == {"arm_0", *(f"arm_{i}" for i in range(33, 40))}
    kinds = [style.kind for style in styles.values()]
    assert len(set(kinds[:25])) == 25


def of_arm(drawing, arm):
    """The marks of one arm."""
    return re.search(rf'<g data-arm="\d+" data-name="{arm}">(.*?)</g>', drawing, re.DOTALL)[1]


def compared_with(values):
    runs = [
        ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: value, **{key: of[arm] for key, of in values.items()}})
        for arm, each in ARMS.items()
        for seed, value in enumerate(each)
    ]
    return compare_runs(runs, "linear")
