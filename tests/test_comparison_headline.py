"""The headline says no more than the tests do."""

from dataclasses import replace

from support.compared_runs import BETTER, LINEAR, PRIMARY, SAME, WORSE, runs

from nc_tools.comparison import ComparedRun, Experiment, compare_runs
from nc_tools.comparison.headline import headline

NLL = "test/cal/nll"


def test_the_headline_states_the_result_of_the_tests():
    one = headline(compare_runs(runs(linear=LINEAR, etf=BETTER), "linear"))
    level = "in balanced accuracy (Holm-adjusted p < .05)"
    assert one.startswith(f"etf is significantly better than the baseline linear {level}: +5.0 points [")
    assert "n = 5" in one
    none = headline(compare_runs(runs(linear=LINEAR, etf=SAME), "linear"))
    assert none.startswith("No arm is significantly better than the baseline linear")
    assert "No arm has a better mean" in none or "largest observed gain" in none
    worse = headline(compare_runs(runs(linear=LINEAR, etf=WORSE), "linear"))
    assert "Significantly worse: etf." in worse
    single = headline(compare_runs(runs(linear=LINEAR[:1], etf=BETTER[:1]), "linear"))
    assert single == "No test of balanced accuracy is possible: only one pair: no interval and no test."


def test_an_arm_that_wins_by_its_loss_alone_is_not_praised_for_its_head():
    close = [value + shift for value, shift in zip(BETTER, (0.004, -0.003, 0.002, -0.004, 0.003), strict=True)]
    experiment = Experiment(protocol={"references": {"etf_la": "linear_la"}})
    comparison = compare_runs(runs(linear=LINEAR, linear_la=BETTER, etf_la=close), "linear", experiment=experiment)
    assert comparison.controls.size == 1
    assert "Against the reference with the same loss (linear_la), etf_la is not significantly better." in headline(
        comparison
    )


def test_a_lower_metric_turns_the_verdict():
    flipped = [replace(r, final={"test/cal/nll": r.final[PRIMARY]}) for r in runs(linear=LINEAR, etf=BETTER)]
    comparison = compare_runs(flipped, "linear", experiment=Experiment(primary="test/cal/nll"))
    assert comparison.family.verdict(comparison.test("etf")) == "worse"
    assert headline(comparison).startswith("No arm is significantly better")


def test_the_best_arm_of_a_lower_metric_is_the_lowest():
    values = {"linear": [1.0, 1.1, 0.9], "low": [0.95, 1.08, 0.82], "high": [1.05, 1.4, 1.2]}
    runs = [ComparedRun(arm, s, 0, "FINISHED", {NLL: v}) for arm, vs in values.items() for s, v in enumerate(vs)]
    text = headline(compare_runs(runs, "linear", experiment=Experiment(primary=NLL)))
    assert "The largest observed gain is low: -0.050" in text
