import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from nc_tools.comparison import ComparedRun, Experiment, RecallByClass, compare_runs
from nc_tools.comparison.figures.forest import family_forest, metric_forest
from nc_tools.comparison.figures.panels import class_panels, collapse_panels, reliability_panels
from nc_tools.comparison.image_predictions import BINS, Reliability, disagreement, read_predictions, reliability
from nc_tools.comparison.result import Calibration
from nc_tools.comparison.statistics import detectable_difference, pairs_needed
from nc_tools.comparison.wording import headline
from nc_tools.plots.svg import Axis, axis_over

PRIMARY = "test/gen/balanced_accuracy"
NLL = "test/cal/nll"
ARMS = {"linear": [0.70, 0.71, 0.69], "up": [0.75, 0.762, 0.741], "down": [0.60, 0.62, 0.595]}


def build(metric=PRIMARY, **more):
    runs = [
        ComparedRun(arm, seed, 0, "FINISHED", {metric: value}, **more)
        for arm, values in ARMS.items()
        for seed, value in enumerate(values)
    ]
    return compare_runs(runs, "linear", experiment=Experiment(primary=metric))


def mark(drawing):
    """Where the row's mark stands, in per cent: the last nested picture."""
    return float(re.findall(r'<svg x="([\d.]+)%"', drawing)[-1])


def zero(drawing):
    return float(re.search(r'<line x1="([\d.]+)%"[^>]*class="zero"', drawing).group(1))


def tinted(drawing):
    start, width = re.search(r'<rect x="([\d.]+)%" y="0.00" width="([\d.]+)%"', drawing).groups()
    return float(start), float(start) + float(width)


@pytest.mark.parametrize("metric", [PRIMARY, NLL])
def test_a_forest_puts_larger_values_right_and_tints_the_better_side(metric):
    plot = family_forest(build(metric).family)
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
    row = family_forest(build().family).rows[0]
    assert re.findall(r"one seed: ([+\d.]+)", row.drawing) == ["+5.0", "+5.2", "+5.1"]


@given(st.floats(-1e3, 1e3), st.floats(0.01, 1e3), st.floats(0, 1))
def test_an_axis_keeps_the_order_and_its_ends(low, width, share):
    axis = Axis(low, low + width)
    assert axis.place(low) == 0
    assert axis.place(low + width) == pytest.approx(1)
    assert axis.place(low + share * width) == pytest.approx(share, abs=1e-6)
    assert all(axis.low - 1e-6 * width <= tick <= axis.high + 1e-6 * width for tick in axis.ticks())
    assert 2 <= len(axis.ticks()) <= 7


def test_a_log_axis_is_even_in_ratios():
    axis = axis_over([0.01, 100.0], log=True, margin=0)
    assert axis.place(1.0) == pytest.approx(0.5)
    assert axis.place(-1.0) == 0.0
    assert Axis(5.0, 700.0, log=True).ticks() == [10, 30, 100, 300]
    assert Axis(0.11, 0.25, log=True).ticks() == pytest.approx([0.15, 0.2])


def test_recall_rises_upwards_and_rare_classes_lie_left():
    found = RecallByClass(("rare", "common", "absent"), (10, 1000, 5), (50, 50, 0), (0.2, 0.9, math.nan))
    panel = class_panels(build(per_class=found))[0]
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
    found = replace(build(), calibration={"up": Calibration(Reliability(count, confidence, correct), None, 1)})
    (panel,) = reliability_panels(found)
    assert "confidence 90 %, accuracy 30 %" in panel.drawing
    x, y = map(float, re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', panel.drawing).groups())
    ends = re.search(r'points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+)" class="ideal"', panel.drawing)
    left, bottom, right, top = map(float, ends.groups())
    assert (x - left) / (right - left) == pytest.approx(0.9, abs=0.01)
    assert (bottom - y) / (bottom - top) == pytest.approx(0.3, abs=0.01)


def test_curves_of_unfinished_runs_are_not_averaged_in():
    curves = {"train/nc/nc1_pinv": ((1, 4.0), (2, 1.0))}
    found = build(curves=curves)
    wild = ComparedRun("up", 9, 0, "KILLED", {}, {"holdout/nc/nc1_pinv": ((1, 100.0),)}, kind="holdout")
    panels = collapse_panels(replace(found, runs=(*found.runs, wild)))
    assert [panel.caption for panel in panels] == ["last epoch: train 1"] * 3


def test_reliability_is_the_sum_of_a_loop_over_images():
    generator = np.random.default_rng(4)
    logits = generator.normal(0, 3, (200, 5)).astype(np.float32)
    correct = generator.uniform(size=200) < 0.5
    found = reliability(logits, correct, 1.7)
    count, confidence, right = ([0.0] * BINS for _ in range(3))
    for row, hit in zip(logits.tolist(), correct, strict=True):
        total = sum(math.exp(z / 1.7) for z in row)
        p = max(math.exp(z / 1.7) / total for z in row)
        index = next(b for b in range(BINS) if b / BINS < p <= (b + 1) / BINS)
        count[index] += 1
        confidence[index] += p
        right[index] += hit
    assert found.count.tolist() == count
    assert found.confidence == pytest.approx(confidence)
    assert found.correct.tolist() == right
    expected = sum(abs(c - r) for c, r in zip(confidence, right, strict=True)) / 200
    assert found.ece == pytest.approx(expected)


def test_saturated_logits_stay_finite():
    found = reliability(np.array([[1e4, -1e4], [3e38, 0]], np.float32), np.array([True, False]))
    assert found.confidence[-1] == 2.0
    assert found.ece == 0.5


def write(path, logits, labels, **more):
    save_file({"test_logits": np.asarray(logits, np.float32), "test_labels": np.asarray(labels), **more}, path)
    return read_predictions(path)


def test_disagreement_counts_each_side(tmp_path):
    labels = np.array([0, 0, 0, 1])
    arm = write(tmp_path / "a", [[1, 0], [1, 0], [1, 0], [1, 0]], labels)
    reference = write(tmp_path / "b", [[0, 1], [1, 0], [0, 1], [0, 1]], labels)
    found = disagreement("etf", 0, arm, reference)
    assert (found.only_arm, found.only_reference, found.images) == (2, 1, 4)
    other = write(tmp_path / "c", [[1, 0]] * 4, labels[::-1].copy())
    with pytest.raises(ValueError, match="other images"):
        disagreement("etf", 0, arm, other)


def test_a_temperature_cools_and_its_absence_is_known(tmp_path):
    logits, labels = [[4.0, 0.0], [0.0, 4.0]], np.array([0, 0])
    assert write(tmp_path / "a", logits, labels).after is None
    found = write(tmp_path / "b", logits, labels, temperature=np.array([8.0], np.float32))
    assert found.after.confidence.sum() < found.before.confidence.sum()
    assert found.before.correct.sum() == 1


@pytest.mark.parametrize("content", [b"", b"\x00" * 40])
def test_a_file_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_predictions(tmp_path / "x")


def test_a_file_without_its_tensors_is_refused(tmp_path):
    save_file({"test_labels": np.array([1])}, tmp_path / "x")
    with pytest.raises(ValueError, match="must hold test_logits"):
        read_predictions(tmp_path / "x")


def test_the_reach_of_a_test_is_that_of_its_family():
    found = build()
    test = found.test("up")
    sd = test.paired.sd
    assert test.reach.plain == detectable_difference(sd, 3, alpha=0.05)
    assert test.reach.corrected == detectable_difference(sd, 3, alpha=0.025)
    spread = replace(found.family.tests[0], arm="x")
    assert spread.reach.pairs_for_half == pairs_needed(test.paired.mean / 2, sd, alpha=0.05)


def test_half_of_the_difference_needs_more_pairs_than_all_of_it():
    noisy = {"linear": [0.7, 0.71, 0.69, 0.70], "up": [0.74, 0.70, 0.71, 0.73]}
    runs = [ComparedRun(arm, s, 0, "FINISHED", {PRIMARY: v}) for arm, vs in noisy.items() for s, v in enumerate(vs)]
    test = compare_runs(runs, "linear").test("up")
    mean, sd = test.paired.mean, test.paired.sd
    assert test.reach.pairs_for_half == pairs_needed(mean / 2, sd) > pairs_needed(mean, sd)
    assert test.reach.pairs_for_half_corrected == pairs_needed(mean / 2, sd)


def test_the_best_arm_of_a_lower_metric_is_the_lowest():
    values = {"linear": [1.0, 1.1, 0.9], "low": [0.95, 1.08, 0.82], "high": [1.05, 1.4, 1.2]}
    runs = [ComparedRun(arm, s, 0, "FINISHED", {NLL: v}) for arm, vs in values.items() for s, v in enumerate(vs)]
    text = headline(compare_runs(runs, "linear", experiment=Experiment(primary=NLL)))
    assert "The largest gain seen is low: -0.050" in text
