"""Frames: how they are spread over seeds, how two arms are paired by them, and what an interval then covers."""

from dataclasses import replace

import numpy as np
import pytest
from support.compared_runs import LINEAR, PRIMARY, run, runs

from nc_tools.comparison import compare_runs
from nc_tools.comparison.frames import FramedRuns, design_of, frame_differences
from nc_tools.comparison.headline import headline
from nc_tools.comparison.random_effects import crossed_error
from nc_tools.comparison.statistics import paired_difference


def cells(*made):
    return {(one.seed, one.draw): one for one in made}


def of(*made):
    return FramedRuns.of(cells(*made)).values(PRIMARY)


def framed(arm, table, frames):
    """Runs from values (seeds, draws) and the frame of each."""
    return [
        run(arm, seed, float(value), draw, frame_seed=frames[seed][draw])
        for seed, row in enumerate(table)
        for draw, value in enumerate(row)
    ]


@pytest.mark.parametrize(
    ("frames", "design"),
    [
        ([{1}, {2}, {3}], "own"),
        ([{1, 2}, {3, 4}], "own"),
        ([{1, 2}, {1, 2}], "crossed"),
        ([{1}, {1}], "fixed"),
        ([{1}, {1}, {2}], "shared"),
        ([{1, 2}, {2, 3}], "shared"),
        ([{"seed 0, draw 0"}, {"seed 1, draw 0"}], "none"),
        ([{"unknown"}, {"unknown"}], "unknown"),
        ([{5}], "own"),
    ],
)
def test_the_design_is_told_by_the_frames_and_not_by_the_number_of_the_draw(frames, design):
    assert design_of({seed: frozenset(row) for seed, row in enumerate(frames)}) == design


def test_own_frames_give_the_t_interval_over_the_means_by_seed():
    table = np.asarray([[0.74, 0.76], [0.75, 0.79], [0.73, 0.74]])
    made = framed("etf", table, [[1, 2], [3, 4], [5, 6]])
    test = compare_runs([*runs(linear=LINEAR[:3]), *made], "linear").test("etf")
    expected = paired_difference(table.mean(1).tolist(), LINEAR[:3])
    assert (test.paired.low, test.paired.high, test.paired.p) == pytest.approx(
        (expected.low, expected.high, expected.p)
    )
    assert test.frames == "own"


def test_crossed_frames_get_the_two_way_interval():
    table = (
        np.asarray(LINEAR)[:, None]
        + np.asarray([[0.00, 0.05, 0.10]])
        + np.asarray([0.01, 0.0, 0.02, 0.0, 0.01])[:, None]
    )
    made = framed("etf", table, [[0, 1, 2]] * 5)
    test = compare_runs([*runs(linear=LINEAR), *made], "linear").test("etf")
    term = crossed_error(table - np.asarray(LINEAR)[:, None])
    assert test.frames == "crossed"
    assert (test.paired.error**2, test.paired.df) == pytest.approx((term.variance, term.df))
    # Two degrees of freedom and a frame that moves the result by .05: no verdict, where the spread over seeds alone
    # would have given p < .001.
    assert compare_runs([*runs(linear=LINEAR), *made], "linear").family.verdict(test) == "open"
    assert paired_difference(table.mean(1).tolist(), LINEAR).p < 0.001


def test_crossed_error_is_the_textbooks_on_balanced_random_effects():
    """Its mean over many tables is the true variance of the table's mean."""
    generator = np.random.default_rng(0)
    seed, frame, rest = 1.0, 2.0, 0.5
    errors = [
        crossed_error(
            generator.normal(0, seed, (5, 1)) + generator.normal(0, frame, (1, 3)) + generator.normal(0, rest, (5, 3))
        ).variance
        for _ in range(4000)
    ]
    assert np.mean(errors) == pytest.approx(seed**2 / 5 + frame**2 / 3 + rest**2 / 15, rel=0.05)


def test_one_frame_for_all_seeds_is_said_in_the_headline():
    made = framed("etf", [[value + 0.05 + 0.001 * seed] for seed, value in enumerate(LINEAR)], [[7]] * 5)
    comparison = compare_runs([*runs(linear=LINEAR), *made], "linear")
    assert comparison.test("etf").frames == "fixed"
    assert "those of etf hold for the one frame that all seeds share only" in headline(comparison)
    assert any(caution.kind == "frames" for caution in comparison.cautions)


def test_two_framed_arms_are_paired_at_the_frames_that_both_have():
    """Frames 0 and 1 against 0, 1 and 2: the means differ by 1, the frames in common by .1."""
    base = [framed("a", [[0.5 + 0.01 * s, 0.6 + 0.01 * s] for s in range(4)], [[0, 1]] * 4)]
    other = framed("b", [[0.6 + 0.01 * s, 0.7 + 0.01 * s, 3.6 + 0.01 * s] for s in range(4)], [[0, 1, 2]] * 4)
    comparison = compare_runs([*base[0], *other], "a")
    assert comparison.test("b").paired.mean == pytest.approx(0.1)


def test_frames_that_differ_and_return_at_several_seeds_are_not_paired():
    first = framed("a", [[0.5 + 0.01 * s, 0.6] for s in range(3)], [[0, 1]] * 3)
    second = framed("b", [[0.7 + 0.01 * s, 0.8] for s in range(3)], [[2, 3]] * 3)
    differences = frame_differences(of(*first), of(*second))
    assert differences.table == {}
    assert differences.unpaired == (0, 1, 2)
    comparison = compare_runs([*runs(linear=LINEAR[:3]), *first, *second], "linear")
    assert comparison.test("b").paired is not None  # linear has no frames


def test_an_incomplete_crossed_table_loses_the_seed_or_the_frame_that_costs_less():
    whole = [[0.5 + 0.01 * s + 0.02 * f for f in range(3)] for s in range(5)]
    missing_one = [run_ for run_ in framed("a", whole, [[0, 1, 2]] * 5) if (run_.seed, run_.draw) != (4, 2)]
    differences = frame_differences(of(*missing_one), of(*runs(linear=LINEAR)))
    assert (len(differences.table), len(differences.table[0]), differences.design) == (4, 3, "crossed")
    third_rare = [run_ for run_ in framed("a", whole, [[0, 1, 2]] * 5) if run_.draw < 2 or run_.seed == 0]
    differences = frame_differences(of(*third_rare), of(*runs(linear=LINEAR)))
    assert (len(differences.table), len(differences.table[0])) == (5, 2)


def test_own_frames_need_not_be_the_same_in_two_arms():
    first = framed("a", [[0.5 + 0.01 * s] for s in range(3)], [[0], [1], [2]])
    second = framed("b", [[0.7 + 0.02 * s] for s in range(3)], [[10], [11], [12]])
    differences = frame_differences(of(*second), of(*first))
    assert list(differences.by_seed.values()) == pytest.approx([0.2, 0.21, 0.22])


def test_records_of_old_recipes_are_crossed_by_their_draws():
    made = [
        run("etf", seed, value + 0.01 * draw, draw, frame_seed="unknown")
        for seed, value in enumerate(LINEAR)
        for draw in range(3)
    ]
    linear = [replace(one, frame_seed="unknown") for one in runs(linear=LINEAR)]
    assert compare_runs([*linear, *made], "linear").test("etf").frames == "crossed"


def test_unknown_frames_are_a_caution_with_a_way_out():
    made = [replace(one, frame_seed="unknown") for one in runs(linear=LINEAR, etf=[v + 0.01 for v in LINEAR])]
    cautions = [str(caution) for caution in compare_runs(made, "linear").cautions]
    assert any("do not say which random frame each run had" in text and "model=model" in text for text in cautions)


def test_a_lost_frame_of_one_seed_takes_the_verdict_in_favor():
    table = [[value + 0.05 + 0.001 * seed, value + 0.051] for seed, value in enumerate(LINEAR)]
    made = framed("etf", table, [[2 * s, 2 * s + 1] for s in range(5)])
    whole = compare_runs([*runs(linear=LINEAR), *made], "linear")
    assert whole.family.verdict(whole.test("etf")) == "better"
    made[3] = replace(made[3], final={PRIMARY: float("nan")})
    comparison = compare_runs([*runs(linear=LINEAR), *made], "linear")
    assert comparison.family.verdict(comparison.test("etf")) == "open"
    text = headline(comparison)
    assert "etf has no value at seed 1" in text
    assert "so etf gets no verdict" in text
    kinds = {caution.kind for caution in comparison.cautions}
    assert {"lost runs", "uneven draws"} <= kinds


def test_a_seed_that_diverged_is_lost_and_a_stopped_one_is_only_missing():
    better = [value + 0.05 + 0.001 * seed for seed, value in enumerate(LINEAR)]
    diverged = [*runs(linear=LINEAR, etf=better[:4]), run("etf", 4, 0.0, status="FAILED", error="loss is not finite")]
    comparison = compare_runs(diverged, "linear")
    assert comparison.family.verdict(comparison.test("etf")) == "open"
    assert comparison.state("etf").label == "4"
    assert comparison.test("etf").paired.n == len(comparison.row("etf", PRIMARY).seeds) == 4
    stopped = [*runs(linear=LINEAR, etf=better[:4]), run("etf", 4, 0.0, status="KILLED")]
    comparison = compare_runs(stopped, "linear")
    assert comparison.family.verdict(comparison.test("etf")) == "better"


def test_a_baseline_that_lost_a_seed_cannot_make_an_arm_worse():
    worse = [value - 0.05 - 0.001 * seed for seed, value in enumerate(LINEAR)]
    made = [*runs(linear=LINEAR[:4], etf=worse), run("linear", 4, float("nan"))]
    comparison = compare_runs(made, "linear")
    assert comparison.family.unrestricted_verdict(comparison.test("etf")) == "worse"
    assert comparison.family.verdict(comparison.test("etf")) == "open"
    assert "linear has no value at seed 4" in headline(comparison)
