"""Cautions: what makes a comparison unfair is named."""

from dataclasses import replace

import pytest
from support.compared_runs import BETTER, LINEAR, run, runs
from support.comparison_records import write_output

from nc_tools.comparison import ComparedRun, compare, compare_runs
from nc_tools.comparison.headline import headline
from nc_tools.comparison.read_experiment import Experiment


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return compare(write_output(tmp_path_factory.mktemp("out"), images=400, epochs=6))


def test_unfair_things_are_named(complete):
    named = {(caution.kind, caution.arm) for caution in complete.cautions}
    assert ("confounded", "cosine_la") in named
    assert ("tuning", "etf_dr") in named
    assert ("uneven draws", "") in named
    assert not any(caution.kind == "record" and "predictions" in caution.text for caution in complete.cautions)
    confounded = next(caution for caution in complete.cautions if caution.kind == "confounded")
    assert "epochs (30 against 40)" in confounded.text
    assert "cosine_la differs in more than the method" in headline(complete)
    # etf_dr trained with another rate: it was tuned, so it may.
    assert ("confounded", "etf_dr") not in named


def test_a_rate_that_differs_without_any_tuning_is_confounded():
    one = [
        replace(r, config={"optimizer": {"lr": 0.1 if r.arm == "etf" else 1.0}})
        for r in runs(linear=LINEAR, etf=BETTER)
    ]
    comparison = compare_runs(one, "linear")
    assert [caution.kind for caution in comparison.cautions] == ["confounded"]
    assert "optimizer.lr" in comparison.cautions[0].text


def test_settings_that_each_seed_tuned_for_itself_may_differ():
    arguments = {0: {}, 1: {"tau": 0.5}, 2: {"tau": 1.5}, 3: {}, 4: {}}
    tuned = [replace(r, config={"loss": {"arguments": arguments[r.seed]}}) for r in runs(linear=LINEAR, etf=BETTER)]
    trial = {"arm": "etf", "lr": 0.1, "parameter": "loss.tau", "value": 0.5, "score": 0.5, "status": "FINISHED"}
    of_seeds = Experiment(protocol={"tune_each_seed": True}, tuning={"trials": [trial]})
    assert not [c for c in compare_runs(tuned, "linear", experiment=of_seeds).cautions if c.kind.startswith("mixed")]
    common = Experiment(tuning={"trials": [trial]})
    cautions = compare_runs(tuned, "linear", experiment=common).cautions
    assert ["loss.arguments.tau" in c.text for c in cautions if c.kind == "mixed configurations"] == [True, True]


def test_other_images_at_one_seed_break_the_pair():
    other = [
        replace(r, data={"fingerprint": f"{r.arm if r.seed == 2 else ''}"}) for r in runs(linear=LINEAR, etf=BETTER)
    ]
    comparison = compare_runs(other, "linear")
    assert str(comparison.cautions[0]) == (
        "not paired: etf has other images than the baseline at seed 2, which is left out"
    )
    assert comparison.test("etf").seeds == (0, 1, 3, 4)
    assert comparison.test("etf").paired.n == comparison.row("etf", "test/gen/balanced_accuracy").paired.n == 4


def test_two_pairs_are_called_few():
    comparison = compare_runs(runs(linear=LINEAR[:2], etf=BETTER[:2]), "linear")
    assert [caution.kind for caution in comparison.cautions] == ["few pairs"]


def test_groups_of_classes_that_differ_by_arm_are_named():
    def run(arm, seed, counts):
        final = {"test/gen/balanced_accuracy": 0.7 + 0.01 * seed}
        return ComparedRun(arm, seed, 0, "FINISHED", final, data={"class_counts": counts})

    same = [run(arm, seed, [9, 5 + seed, 2]) for arm in ("given", "corrected") for seed in range(3)]
    assert not [c for c in compare_runs(same, "given").cautions if c.kind == "frequency groups"]
    changed = [*same[:-1], run("corrected", 2, [6, 9, 3])]
    (caution,) = [c for c in compare_runs(changed, "given").cautions if c.kind == "frequency groups"]
    assert "about other classes in each arm" in caution.text


def test_arms_made_by_different_versions_of_torch_are_named():
    def made(arm, seed, value, torch, **more):
        return run(arm, seed, value, versions={"torch": torch, "numpy": "2.4"} | more)

    made_runs = [made("linear", seed, 0.7 + 0.01 * seed, "2.14.1") for seed in range(3)]
    made_runs += [
        made("etf", seed, 0.72 + 0.02 * seed, "2.15.0" if seed else "2.14.1", numpy="2.5") for seed in range(3)
    ]
    made_runs += [run("loop", seed, 0.7 + 0.03 * seed) for seed in range(3)]  # its records do not say
    (caution,) = [one for one in compare_runs(made_runs, "linear").cautions if one.kind == "versions"]
    assert caution.arm == "etf"
    assert caution.text == (
        "etf was made with torch 2.15.0 and linear with torch 2.14.1 at seed 1, 2, so their difference may be one of "
        "versions. Run one of them again"
    )
