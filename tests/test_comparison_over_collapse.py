"""Metrics over measured NC1: where the points are, which panels there are, and the arms' names."""

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from support.saved_figures import saved_rows

from nc_tools.comparison import ComparedRun, compare_runs, write_comparison
from nc_tools.comparison.figures.over_collapse import over_collapse, over_collapse_document
from nc_tools.comparison.html_report import comparison_html

PRIMARY = "test/gen/balanced_accuracy"
# Two seeds of (NC1, accuracy) each; the order of the arms is not that of their NC1.
DIAL = {
    "linear": ((0.2, 0.90), (0.4, 0.94)),
    "open_b": ((3.2, 0.70), (0.8, 0.74)),
    "open_a": ((0.4, 0.80), (0.9, 0.84)),
    "tight": ((0.1, 0.96), (0.1, 0.98)),
}


def runs_of(dial=DIAL, *, draws=1, **more):
    """Runs in which every measure is the accuracy, its complement, or absent."""
    runs = []
    for arm, seeds in dial.items():
        for seed, (nc1, value) in enumerate(seeds):
            for draw in range(draws):
                final = {PRIMARY: value, "train/nc/nc1_pinv": nc1, "test/nc/nc1_pinv": 2 * nc1}
                final |= {key: change(value) for key, change in more.items()}
                runs.append(ComparedRun(arm, seed, draw, "FINISHED", final))
    return runs


def compared(**more):
    return compare_runs(runs_of(**more), "linear")


ALL = {
    "test/cal/ece": lambda v: 1 - v,
    "test/cal_ts/ece": lambda v: (1 - v) / 2,
    "test/ood/held_out/energy/auroc": lambda v: v - 0.3,
    "test/ood/held_out/msp/auroc": lambda v: v - 0.1,
    "test/ood/held_out/knn/auroc": lambda v: v - 0.2,
    "test/ood/held_out/knn/fpr95": lambda v: 1 - v,
    "transfer/probe/accuracy": lambda v: v - 0.4,
}


def dots(drawing, kind, radius):
    """(x, y) of the circles of a curve, in the order of drawing."""
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)" class="([^"]*)">', drawing)
    return [(float(x), float(y)) for x, y, r, c in circles if c.split()[1] == kind and r == radius]


def test_there_is_one_dot_for_a_seed_and_one_mean_for_an_arm_joined_from_least_nc1_to_most():
    (panel,) = over_collapse(compared())[0].panels
    seeds, means = dots(panel.drawing, "one", "2.2"), dots(panel.drawing, "one", "4")
    assert (len(seeds), len(means)) == (8, 4)
    header, *rows = saved_rows(panel)
    assert header == ["metric", "arm", "seed", "nc1", "value"]
    assert len(rows) == 8
    assert [PRIMARY, "open_b", "1", "0.8", "0.74"] in rows
    assert [x for x, _ in means] == sorted(x for x, _ in means)
    line = re.search(r'<polyline points="([^"]+)" class="curve one"', panel.drawing).group(1)
    joined = [tuple(map(float, pair.split(","))) for pair in line.split()]
    assert joined == [(pytest.approx(x, abs=0.06), pytest.approx(y, abs=0.06)) for x, y in means]


def test_across_is_logarithmic_and_means_are_geometric_there_and_plain_upwards():
    (panel,) = over_collapse(compared())[0].panels
    means = dict(zip(("tight", "linear", "open_a", "open_b"), dots(panel.drawing, "one", "4"), strict=True))
    where = {arm: math.sqrt(math.prod(x for x, _ in seeds)) for arm, seeds in DIAL.items()}
    value = {arm: sum(y for _, y in seeds) / 2 for arm, seeds in DIAL.items()}
    across = [(math.log(where[a]), means[a][0]) for a in DIAL]
    up = [(value[a], means[a][1]) for a in DIAL]
    for pairs in (across, up):  # positions are linear in the values
        (x0, p0), (x1, p1) = pairs[0], pairs[-1]
        slope = (p1 - p0) / (x1 - x0)
        assert all(p == pytest.approx(p0 + slope * (x - x0), abs=0.05) for x, p in pairs)
    assert means["tight"][0] < means["open_b"][0]
    assert means["tight"][1] < means["open_b"][1]  # larger values are higher
    assert panel.caption == "most collapsed: tight 97.0; least: open_b 72.0"


def test_each_split_has_a_row_over_its_own_nc1():
    train, test = over_collapse(compared())
    assert (train.split, test.split) == ("training", "test")
    title = r"<title>linear, seed 0: 90 at NC1 ([\d.]+)</title>"
    nc1 = [re.findall(title, row.panels[0].drawing) for row in (train, test)]
    assert nc1 == [["0.2"], ["0.4"]]


def test_draws_enter_a_seed_as_their_mean():
    (panel,) = over_collapse(compared(draws=3))[0].panels
    assert len(dots(panel.drawing, "one", "2.2")) == 8


def test_panels_are_of_what_was_measured_and_outliers_by_scores_chosen_beforehand():
    row = over_collapse(compare_runs(runs_of(**ALL), "linear"))[0]
    assert [panel.title for panel in row.panels] == [
        "balanced accuracy", "ECE", "outliers (held out), AUROC", "transfer, linear probe",
    ]  # fmt: skip
    _, ece, outliers, probe = (panel.drawing for panel in row.panels)
    assert "as trained" in ece
    assert "after temperature scaling" in ece
    assert "MSP" in outliers
    assert "KNN" in outliers
    assert "Energy" not in outliers  # its accuracy is the lowest here: no choice by result
    assert "tight, seed 0, MSP: 86 at NC1 0.1" in outliers
    assert "tight, seed 0, KNN: 76 at NC1 0.1" in outliers
    assert "tight, seed 0, as trained: 4 at NC1 0.1" in ece
    assert "tight, seed 0, after temperature scaling: 2 at NC1 0.1" in ece
    assert "tight, seed 0: 56 at NC1 0.1" in probe


def test_metrics_without_values_are_left_out():
    comparison = compared()
    assert [panel.title for row in over_collapse(comparison) for panel in row.panels] == ["balanced accuracy"] * 2
    page = comparison_html(comparison)
    assert "outliers (" not in page
    only = {"test/cal/ece": ALL["test/cal/ece"]}
    ece = over_collapse(compare_runs(runs_of(**only), "linear"))[0].panels[1].drawing
    assert "after temperature" not in ece


def test_three_arms_make_no_curve_and_leave_no_figure(tmp_path):
    few = compare_runs(runs_of({arm: DIAL[arm] for arm in list(DIAL)[:3]}), "linear")
    assert over_collapse(few) == ()
    assert over_collapse_document(few) == ""
    assert "Metrics over measured collapse" not in comparison_html(few)
    write_comparison(few, tmp_path)
    assert not (tmp_path / "over_nc1.svg").exists()


def test_arms_of_one_classifier_are_joined_where_they_are_four_and_others_stand_alone():
    cosine, scaled = {"class": "heads.CosineHead"}, {"class": "stages.Scaling"}
    others = [*runs_of({"control": ((0.3, 0.5), (0.3, 0.6))}), *runs_of({"scaled": ((0.35, 0.5), (0.3, 0.6))})]
    linear = [replace(run, config={"head": {"class": "heads.LinearHead"}}) for run in runs_of()]
    configs = {
        "control": {"head": cosine, "second_stage": None},
        "scaled": {"head": {"class": "heads.LinearHead"}, "second_stage": scaled},
    }
    others = [replace(run, config=configs[run.arm]) for run in others]
    (panel,) = over_collapse(compare_runs(linear + others, "linear"))[0].panels
    (line,) = re.findall(r'<polyline points="([^"]+)" class="curve one"', panel.drawing)
    assert len(line.split()) == 4
    assert len(dots(panel.drawing, "one", "4")) == 6
    pairs = [replace(run, config={"head": run.arm in ("linear", "tight", "open_a")}) for run in runs_of()]
    assert "polyline" not in over_collapse(compare_runs(pairs, "linear"))[0].panels[0].drawing


def test_an_arm_whose_nc1_is_zero_or_missing_is_left_out():
    comparison = compared(dial={**DIAL, "broken": ((0.0, 0.9), (float("nan"), 0.9))})
    (panel,) = over_collapse(comparison)[0].panels
    assert "broken" not in panel.drawing
    assert len(dots(panel.drawing, "one", "4")) == 4


def test_every_arm_is_named_and_the_baseline_called_so():
    (panel,) = over_collapse(compared())[0].panels
    names = re.findall(r'class="name"[^>]*>([^<]+)<', panel.drawing)
    assert sorted(names) == ["linear (baseline)", "open_a", "open_b", "tight"]


def test_the_file_is_one_picture_that_stands_alone(tmp_path):
    comparison = compare_runs(runs_of({**DIAL, "<evil>&": DIAL["tight"]}, **ALL), "linear")
    write_comparison(comparison, tmp_path)
    root = ET.fromstring((tmp_path / "over_nc1.svg").read_text())
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [t for t in texts if t.startswith("Over NC1 of")] == [
        "Over NC1 of training images", "Over NC1 of test images",
    ]  # fmt: skip
    assert texts.count("balanced accuracy") == 2
    assert "<evil>&" in texts
    assert "Metrics over measured collapse" in (tmp_path / "comparison.html").read_text()
    assert write_comparison(comparison, tmp_path / "one", formats=["csv"]).keys() == {"csv"}
    assert not (tmp_path / "one" / "over_nc1.svg").exists()
