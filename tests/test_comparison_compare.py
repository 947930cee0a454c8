"""Comparing runs: pairing, means over draws, verdicts on planted differences, and errors."""

import time
import timeit
from dataclasses import replace

import numpy as np
import pytest
from support.compared_runs import BETTER, LINEAR, PRIMARY, run, runs
from support.comparison_records import write_output

from nc_tools.comparison import ComparedRun, Experiment, compare, compare_runs
from nc_tools.comparison.pairing import name_seeds
from nc_tools.comparison.wording import unfinished_texts


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return compare(write_output(tmp_path_factory.mktemp("out"), images=400, epochs=6))


def test_arms_pair_by_seed_and_not_by_order():
    shuffled = runs(linear=LINEAR) + [run("etf", seed, LINEAR[seed] + 0.01 + 0.001 * seed) for seed in (4, 2, 0, 1, 3)]
    paired = compare_runs(shuffled, "linear").test("etf").paired
    assert paired.differences == pytest.approx([0.010, 0.011, 0.012, 0.013, 0.014])


def test_an_arm_enters_each_seed_with_the_mean_over_its_draws():
    drawn = [
        run("etf", seed, value + 0.01 * draw, draw, frame_seed="unknown")
        for seed, value in enumerate(LINEAR)
        for draw in range(3)
    ]
    comparison = compare_runs(runs(linear=LINEAR) + drawn, "linear")
    assert comparison.row("etf", PRIMARY).mean == pytest.approx(np.mean(LINEAR) + 0.01)
    assert comparison.row("etf", PRIMARY).draws == 3
    assert comparison.shares["etf"].frame == pytest.approx(1e-4)
    assert "linear" not in comparison.shares


def test_only_common_seeds_pair_and_missing_ones_are_named():
    comparison = compare_runs(runs(linear=LINEAR, etf=BETTER[:3]), "linear")
    assert comparison.test("etf").seeds == (0, 1, 2)
    assert comparison.state("etf").missing == (3, 4)
    assert unfinished_texts(comparison) == ["etf did not finish: no result at seed 3, 4"]


def test_the_newest_run_of_a_cell_stands_for_it():
    old, new = run("etf", 0, 0.1, created_ms=1), run("etf", 0, 0.9, created_ms=2)
    comparison = compare_runs([*runs(linear=LINEAR), new, old], "linear")
    assert comparison.row("etf", PRIMARY).mean == 0.9
    assert "1 older finished run" in comparison.notes[0]


def test_runs_for_tuning_and_with_a_hold_out_are_not_scored():
    extra = [replace(run("etf", 9, 0.99), kind=kind) for kind in ("tuning", "holdout")]
    comparison = compare_runs([*runs(linear=LINEAR, etf=BETTER), *extra], "linear")
    assert comparison.row("etf", PRIMARY).seeds == (0, 1, 2, 3, 4)
    assert len(comparison.runs) == 12


def test_a_value_that_is_not_finite_is_no_value():
    comparison = compare_runs([*runs(linear=LINEAR, etf=BETTER[:4]), run("etf", 4, float("nan"))], "linear")
    assert comparison.test("etf").seeds == (0, 1, 2, 3)


@pytest.mark.parametrize("value", [1e308, -1.7e308, 1e200])
def test_a_value_whose_square_overflows_is_no_value(value):
    comparison = compare_runs(runs(linear=LINEAR, etf=[*BETTER[:4], value]), "linear")
    assert comparison.test("etf").seeds == (0, 1, 2, 3)
    assert comparison.row("etf", PRIMARY).mean == pytest.approx(np.mean(BETTER[:4]))


def test_differences_whose_squares_vanish_give_no_test():
    comparison = compare_runs(runs(linear=[0.0, 0.0, 0.0], etf=[1e-308, 2e-308, 5e-324]), "linear")
    assert comparison.test("etf").paired.p is None


def test_arms_without_a_result_stay_in_the_list(complete):
    assert complete.arms[-1] == "etf_wide"
    assert complete.state("etf_wide").label == "0"
    assert complete.row("etf_wide", PRIMARY).mean is None
    text = " ".join(unfinished_texts(complete))
    assert "etf_wide did not finish" in text
    assert "FAILED after step 6: loss is not finite" in text
    assert "KILLED" in text


def test_planted_differences_are_found_again(complete):
    for arm, gain in {"linear_la": 0.052, "etf_la": 0.058, "etf": -0.006}.items():
        assert complete.test(arm).paired.mean == pytest.approx(gain, abs=0.012)
    assert complete.family.verdict(complete.test("etf_la")) == "better"
    assert {test.arm for test in complete.controls.tests} == {"cosine_la", "etf_la", "frozen_random_la"}


def test_single_models_are_compared_per_seed_and_never_pooled(complete):
    of_arm = [test for test in complete.disagreements if test.arm == "etf_la"]
    assert [test.seed for test in of_arm] == [0, 1, 2, 3, 4]
    assert all(test.images == 400 for test in of_arm)
    assert not any(test.arm == "linear" for test in complete.disagreements)


def test_reliability_knows_the_error_that_was_recorded(complete):
    for arm in ("linear", "etf_la"):
        reliability = complete.calibration[arm]
        assert reliability.runs == 5
        assert reliability.before.count.sum() == 2000
        recorded = np.mean([r.final["test/cal/ece"] for (_, draw), r in complete.cells[arm].items() if draw == 0])
        # Bins added over seeds average some noise away, so the error can only be a little smaller.
        assert recorded - 0.05 < reliability.before.ece <= recorded + 1e-9
        assert reliability.after.ece < reliability.before.ece


def test_a_mistyped_baseline_is_offered_its_neighbors():
    with pytest.raises(ValueError, match=r"got 'linera': did you mean linear"):
        compare_runs(runs(linear=LINEAR, etf=BETTER), "linera")


def test_no_finished_run_says_what_is_there():
    with pytest.raises(ValueError, match=r"needs finished runs, got none \(etf seed 0 KILLED\)"):
        compare_runs([run("etf", 0, 0.5, status="KILLED")], "etf")
    with pytest.raises(ValueError, match="no run at all"):
        compare_runs([], "etf")


def test_a_baseline_that_did_not_finish_is_refused():
    with pytest.raises(ValueError, match="choose another baseline: etf"):
        compare_runs([*runs(etf=BETTER), run("linear", 0, 0.5, status="FAILED")], "linear")


def test_one_arm_is_no_comparison():
    with pytest.raises(ValueError, match="at least two arms"):
        compare_runs(runs(linear=LINEAR), "linear")


def test_no_common_seed_is_refused():
    with pytest.raises(ValueError, match=r"no arm shares a seed with the baseline 'linear' \(its seeds: 0-4\)"):
        compare_runs([*runs(linear=LINEAR), run("etf", 17, 0.5)], "linear")


def test_arms_without_a_finite_primary_value_are_named_and_seeds_are_not_blamed():
    broken = [run("etf", seed, float("nan")) for seed in range(5)]
    with pytest.raises(ValueError, match="both have a finite value of 'test/gen/balanced_accuracy'"):
        compare_runs([*runs(linear=LINEAR), *broken], "linear")


def test_a_primary_metric_that_nobody_recorded_is_refused():
    experiment = Experiment(primary="test/gen/balanced_acuracy")
    with pytest.raises(ValueError, match=r"such as test/gen/balanced_accuracy"):
        compare_runs(runs(linear=LINEAR, etf=BETTER), "linear", experiment=experiment)


def test_names_of_seeds_are_short():
    assert name_seeds([0, 1, 2, 4, 7, 8]) == "0-2, 4, 7, 8"
    assert name_seeds([]) == ""


@pytest.mark.slow
def test_the_time_grows_with_the_number_of_runs_and_no_faster():
    """A thousand runs are compared in seconds; a pass over all seeds for each seed would take minutes."""

    def seconds(seeds):
        final = {f"own/metric_{i}": 0.1 * i for i in range(60)}
        made = [
            ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: 0.5 + 0.001 * (seed % 7), **final})
            for arm in ("linear", "etf", "cosine")
            for seed in range(seeds)
        ]
        return min(timeit.repeat(lambda: compare_runs(made, "linear"), timer=time.process_time, number=1, repeat=3))

    assert seconds(800) < 10 * seconds(200)
