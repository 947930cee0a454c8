from dataclasses import replace

import numpy as np
import pytest
from support.comparison_records import write_output

from nc_tools.comparison import ComparedRun, Experiment, compare, compare_runs
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.pairing import name_seeds
from nc_tools.comparison.wording import headline, unfinished_texts

PRIMARY = "test/gen/balanced_accuracy"


def run(arm, seed, value, draw=0, status="FINISHED", **more):
    final = {PRIMARY: value} if status == "FINISHED" else {}
    return ComparedRun(arm, seed, draw, status, final, **more)


def runs(**arms):
    return [run(arm, seed, value) for arm, values in arms.items() for seed, value in enumerate(values)]


LINEAR = [0.70, 0.71, 0.69, 0.72, 0.70]
BETTER = [0.75, 0.755, 0.745, 0.768, 0.751]
WORSE = [0.65, 0.665, 0.645, 0.672, 0.648]
SAME = [0.71, 0.70, 0.70, 0.715, 0.695]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return compare(write_output(tmp_path_factory.mktemp("out"), images=400, epochs=6))


def test_arms_pair_by_seed_and_not_by_order():
    shuffled = runs(linear=LINEAR) + [run("etf", seed, LINEAR[seed] + 0.01 + 0.001 * seed) for seed in (4, 2, 0, 1, 3)]
    found = compare_runs(shuffled, "linear").test("etf").paired
    assert found.differences == pytest.approx([0.010, 0.011, 0.012, 0.013, 0.014])


def test_an_arm_enters_each_seed_with_the_mean_over_its_draws():
    drawn = [run("etf", seed, value + 0.01 * draw, draw) for seed, value in enumerate(LINEAR) for draw in range(3)]
    found = compare_runs(runs(linear=LINEAR) + drawn, "linear")
    assert found.row("etf", PRIMARY).mean == pytest.approx(np.mean(LINEAR) + 0.01)
    assert found.row("etf", PRIMARY).draws == 3
    assert found.shares["etf"].draw == pytest.approx(1e-4)
    assert "linear" not in found.shares


def test_only_common_seeds_pair_and_missing_ones_are_named():
    found = compare_runs(runs(linear=LINEAR, etf=BETTER[:3]), "linear")
    assert found.test("etf").seeds == (0, 1, 2)
    assert found.state("etf").missing == (3, 4)
    assert unfinished_texts(found) == ["etf did not finish: it has no result at seed 3, 4"]


def test_the_newest_run_of_a_cell_stands_for_it():
    old, new = run("etf", 0, 0.1, created_ms=1), run("etf", 0, 0.9, created_ms=2)
    found = compare_runs([*runs(linear=LINEAR), new, old], "linear")
    assert found.row("etf", PRIMARY).mean == 0.9
    assert "1 older finished run" in found.notes[0]


def test_runs_for_tuning_and_with_a_hold_out_are_not_scored():
    extra = [replace(run("etf", 9, 0.99), kind=kind) for kind in ("tuning", "holdout")]
    found = compare_runs([*runs(linear=LINEAR, etf=BETTER), *extra], "linear")
    assert found.row("etf", PRIMARY).seeds == (0, 1, 2, 3, 4)
    assert len(found.runs) == 12


def test_a_value_that_is_not_finite_is_no_value():
    found = compare_runs([*runs(linear=LINEAR, etf=BETTER[:4]), run("etf", 4, float("nan"))], "linear")
    assert found.test("etf").seeds == (0, 1, 2, 3)


def test_the_family_is_corrected_together():
    found = compare_runs(runs(linear=LINEAR, etf=BETTER, same=SAME, worse=WORSE), "linear")
    raw = {test.arm: test.paired.p for test in found.family.tests}
    assert found.family.size == 3
    assert found.test("etf").p_holm == pytest.approx(3 * min(raw.values())) or raw["etf"] != min(raw.values())
    assert found.test("same").p_holm == pytest.approx(raw["same"])
    assert [found.family.verdict(test) for test in found.family.tests] == ["better", "open", "worse"]


def test_a_lower_metric_turns_the_verdict():
    flipped = [replace(r, final={"test/cal/nll": r.final[PRIMARY]}) for r in runs(linear=LINEAR, etf=BETTER)]
    found = compare_runs(flipped, "linear", experiment=Experiment(primary="test/cal/nll"))
    assert found.family.verdict(found.test("etf")) == "worse"
    assert headline(found).startswith("No arm is better")


def test_the_headline_claims_what_the_tests_found():
    one = headline(compare_runs(runs(linear=LINEAR, etf=BETTER), "linear"))
    assert one.startswith("etf is better than the baseline linear in balanced accuracy: +5.0 points [")
    assert "n = 5" in one
    none = headline(compare_runs(runs(linear=LINEAR, etf=SAME), "linear"))
    assert none.startswith("No arm is better than the baseline linear")
    assert "No arm was ahead" in none or "largest gain" in none
    worse = headline(compare_runs(runs(linear=LINEAR, etf=WORSE), "linear"))
    assert "Worse beyond doubt: etf." in worse
    single = headline(compare_runs(runs(linear=LINEAR[:1], etf=BETTER[:1]), "linear"))
    assert single == "Nothing can be said beyond doubt about balanced accuracy: one pair: no interval and no test."


def test_an_arm_that_wins_by_its_loss_alone_is_not_praised_for_its_head():
    close = [value + shift for value, shift in zip(BETTER, (0.004, -0.003, 0.002, -0.004, 0.003), strict=True)]
    experiment = Experiment(protocol={"references": {"etf_la": "linear_la"}})
    found = compare_runs(runs(linear=LINEAR, linear_la=BETTER, etf_la=close), "linear", experiment=experiment)
    assert found.controls.size == 1
    assert "Against the reference with the same loss (linear_la), etf_la is not better beyond doubt." in headline(found)


def test_all_runs_alike_are_handled():
    found = compare_runs(runs(linear=LINEAR, copy=LINEAR, etf=BETTER), "linear")
    assert found.test("copy").p_holm is None
    assert found.family.size == 1
    assert "identical" in found.test("copy").paired.note


def test_arms_without_a_result_stay_in_the_list(whole):
    assert whole.arms[-1] == "etf_wide"
    assert whole.state("etf_wide").label == "0"
    assert whole.row("etf_wide", PRIMARY).mean is None
    text = " ".join(unfinished_texts(whole))
    assert "etf_wide did not finish" in text
    assert "FAILED after step 6: loss is not finite" in text
    assert "KILLED" in text


def test_planted_differences_are_found_again(whole):
    for arm, gain in {"linear_la": 0.052, "etf_la": 0.058, "etf": -0.006}.items():
        assert whole.test(arm).paired.mean == pytest.approx(gain, abs=0.012)
    assert whole.family.verdict(whole.test("etf_la")) == "better"
    assert {test.arm for test in whole.controls.tests} == {"cosine_la", "etf_la", "frozen_random_la"}


def test_unfair_things_are_named(whole):
    found = {(caution.kind, caution.arm) for caution in whole.cautions}
    assert ("confounded", "cosine_la") in found
    assert ("tuning", "etf_dr") in found
    assert ("uneven draws", "") in found
    assert not any(caution.kind == "record" and "predictions" in caution.text for caution in whole.cautions)
    confounded = next(caution for caution in whole.cautions if caution.kind == "confounded")
    assert "epochs (30 against 40)" in confounded.text
    assert "cosine_la differs in more than the method" in headline(whole)
    # etf_dr trained with another rate: it was tuned, so it may.
    assert ("confounded", "etf_dr") not in found


def test_a_rate_that_differs_without_any_tuning_is_confounded():
    one = [
        replace(r, config={"optimizer": {"lr": 0.1 if r.arm == "etf" else 1.0}})
        for r in runs(linear=LINEAR, etf=BETTER)
    ]
    found = compare_runs(one, "linear")
    assert [caution.kind for caution in found.cautions] == ["confounded"]
    assert "optimizer.lr" in found.cautions[0].text


def test_other_images_at_one_seed_break_the_pair():
    other = [
        replace(r, data={"fingerprint": f"{r.arm if r.seed == 2 else ''}"}) for r in runs(linear=LINEAR, etf=BETTER)
    ]
    assert str(compare_runs(other, "linear").cautions[0]) == (
        "not paired: etf was trained on other images than the baseline at seed 2"
    )


def test_single_models_are_compared_per_seed_and_never_pooled(whole):
    of_arm = [found for found in whole.disagreements if found.arm == "etf_la"]
    assert [found.seed for found in of_arm] == [0, 1, 2, 3, 4]
    assert all(found.images == 400 for found in of_arm)
    assert not any(found.arm == "linear" for found in whole.disagreements)


def test_reliability_knows_the_error_that_was_recorded(whole):
    for arm in ("linear", "etf_la"):
        found = whole.calibration[arm]
        assert found.runs == 5
        assert found.before.count.sum() == 2000
        recorded = np.mean([r.final["test/cal/ece"] for (_, draw), r in whole.cells[arm].items() if draw == 0])
        # Bins added over seeds average some noise away, so the error can only be a little smaller.
        assert recorded - 0.05 < found.before.ece <= recorded + 1e-9
        assert found.after.ece < found.before.ece


def test_a_mistyped_baseline_is_offered_its_neighbors():
    with pytest.raises(ValueError, match=r"got 'linera': did you mean linear"):
        compare_runs(runs(linear=LINEAR, etf=BETTER), "linera")


def test_no_finished_run_says_what_is_there():
    with pytest.raises(ValueError, match=r"needs finished runs, got none \(etf seed 0 KILLED\)"):
        compare_runs([run("etf", 0, 0.5, status="KILLED")], "etf")
    with pytest.raises(ValueError, match="no run at all"):
        compare_runs([], "etf")


def test_a_baseline_that_did_not_finish_is_refused():
    with pytest.raises(ValueError, match="choose a baseline among etf"):
        compare_runs([*runs(etf=BETTER), run("linear", 0, 0.5, status="FAILED")], "linear")


def test_one_arm_is_no_comparison():
    with pytest.raises(ValueError, match="at least two arms"):
        compare_runs(runs(linear=LINEAR), "linear")


def test_no_common_seed_is_refused():
    with pytest.raises(ValueError, match=r"no arm shares a seed with the baseline 'linear' \(its seeds: 0-4\)"):
        compare_runs([*runs(linear=LINEAR), run("etf", 17, 0.5)], "linear")


def test_a_primary_metric_that_nobody_recorded_is_refused():
    experiment = Experiment(primary="test/gen/balanced_acuracy")
    with pytest.raises(ValueError, match=r"such as test/gen/balanced_accuracy"):
        compare_runs(runs(linear=LINEAR, etf=BETTER), "linear", experiment=experiment)


def test_names_of_seeds_are_short():
    assert name_seeds([0, 1, 2, 4, 7, 8]) == "0-2, 4, 7, 8"
    assert name_seeds([]) == ""


@pytest.mark.parametrize(
    ("key", "direction", "text"),
    [
        ("test/gen/few", "higher", "-1.2"),
        ("test/cal/ece", "lower", "-1.2"),
        ("test/cal_ts/nll", "lower", "-0.012"),
        ("transfer/knn/accuracy", "higher", "-1.2"),
        ("train/nc/nc1_pinv", "neither", "-0.012"),
        ("something/else", "neither", "-0.012"),
    ],
)
def test_each_measure_knows_its_direction_and_unit(key, direction, text):
    found = metric_info(key)
    assert (found.direction, found.difference(-0.012)) == (direction, text)
    assert found.improvement(-0.012) == {"higher": "worse", "lower": "better", "neither": "neither"}[direction]
    if direction != "neither":
        assert found.difference(-1e-9).startswith("+0")


def test_a_spread_is_written_to_the_last_digit_of_its_mean():
    assert metric_info("train/nc/nc1_pinv").mean_and_sd(0.36421, 0.02514) == "0.364 ± 0.025"
    assert metric_info("test/gen/accuracy").mean_and_sd(0.5, 5e-17) == "50.0 ± 0.0"
    assert metric_info("test/gen/accuracy").mean_and_sd(0.5, None) == "50.0"


def test_two_pairs_are_called_few():
    found = compare_runs(runs(linear=LINEAR[:2], etf=BETTER[:2]), "linear")
    assert [caution.kind for caution in found.cautions] == ["few pairs"]
