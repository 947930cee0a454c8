"""Choosing an arm: by hold-outs, confirmed by the test set; in words; with its model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.head_plans import COUNTS

from nc_tools.choosing.choice import holdout_scores, make_choice
from nc_tools.choosing.choice_text import WORDS, choice_sentences
from nc_tools.choosing.choose import ChooseOptions
from nc_tools.choosing.class_effects import class_effects
from nc_tools.choosing.head_arms import ArmOptions, choose_arms, head_arms, is_imbalanced
from nc_tools.comparison.compare import compare_runs
from nc_tools.comparison.compared_run import ComparedRun, RecallByClass
from nc_tools.comparison.read_experiment import Experiment
from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig
from nc_tools.experiment.on_features.data_settings import plain_data
from nc_tools.experiment.on_features.feature_options import data_config
from nc_tools.features import GivenFeatures
from nc_tools.losses import CrossEntropyLoss, LogitAdjustedLoss
from nc_tools.specs import spec

KEY = "test/gen/balanced_accuracy"
OPTIONS = ArmOptions(
    data=DataConfig("embeddings:x.npz"), model=ModelConfig(network=spec(GivenFeatures), train="head", standardize=True)
)


def run_of(arm, seed, value, *, status="FINISHED", recall=None, **more):
    final = {KEY: value, "test/cal/ece": 0.1, "test/cal_ts/ece": 0.01, "perf/seconds": 2.0, "perf/parameters": 50.0}
    table = None if recall is None else RecallByClass(("a", "b", "c"), COUNTS, (9, 9, 9), tuple(recall))
    done = status == "FINISHED"
    return ComparedRun(
        arm, seed, 0, status, final | more if done else {}, per_class=table, kind="final", error="" if done else "lost"
    )


def comparison_of(values, **experiment):
    """A comparison from {arm: value at each seed}; the first arm is the baseline."""
    runs = [run_of(arm, seed, v) for arm, own in values.items() for seed, v in enumerate(own)]
    return compare_runs(runs, experiment=Experiment(arms=tuple(values), primary=KEY, **experiment))


BASE = [0.50, 0.52, 0.51, 0.49, 0.50]
GAIN = [v + 0.05 + 0.002 * i for i, v in enumerate(BASE)]


def test_the_best_arm_on_the_hold_outs_is_used_if_the_test_set_confirms_it():
    comparison = comparison_of({"linear": BASE, "etf": GAIN, "cosine": [v - 0.1 for v in BASE]})
    choice = make_choice(comparison, {"linear": 0.5, "etf": 0.55, "cosine": 0.4})
    assert (choice.arm, choice.candidate, choice.confirmed) == ("etf", "etf", True)
    assert choice.difference.mean == pytest.approx(0.054)


def test_an_arm_that_is_best_on_the_test_set_but_not_on_the_hold_outs_is_not_used():
    comparison = comparison_of({"linear": BASE, "etf": GAIN, "cosine": BASE})
    choice = make_choice(comparison, {"linear": 0.6, "etf": 0.55, "cosine": 0.4})
    assert (choice.arm, choice.candidate, choice.difference) == ("linear", "linear", None)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            [v + d for v, d in zip(BASE, (0.05, -0.05, 0.03, -0.02, 0.0), strict=True)],
            "the test set does not confirm it",
        ),
        ([v - 0.05 - 0.001 * i for i, v in enumerate(BASE)], "the test set does not confirm it"),
        ([0.9], "too few finished runs"),
    ],
    ids=["open", "worse", "one seed"],
)
def test_without_confirmation_the_default_is_used(other, reason):
    choice = make_choice(comparison_of({"linear": BASE, "etf": other}), {"linear": 0.5, "etf": 0.7})
    assert (choice.arm, choice.candidate, choice.confirmed) == ("linear", "etf", False)
    assert reason in choice.reason


def test_an_arm_that_lost_runs_or_a_smoke_run_confirms_nothing():
    runs = [run_of("linear", s, v) for s, v in enumerate(BASE)]
    runs += [run_of("etf", s, v, status="FAILED" if s == 4 else "FINISHED") for s, v in enumerate(GAIN)]
    experiment = Experiment(arms=("linear", "etf"), primary=KEY)
    choice = make_choice(compare_runs(runs, experiment=experiment), {"linear": 0.5, "etf": 0.7})
    assert choice.arm == "linear"
    assert "etf lost 1 of its runs" in choice.reason
    smoke = make_choice(comparison_of({"linear": BASE, "etf": GAIN}, smoke=True), {"linear": 0.5, "etf": 0.7})
    assert (smoke.arm, smoke.confirmed) == ("linear", False)
    assert "smoke" in smoke.reason


def test_ties_on_the_hold_outs_go_to_the_default():
    choice = make_choice(comparison_of({"linear": BASE, "etf": GAIN}), {"etf": 0.5, "linear": 0.5})
    assert choice.candidate == "linear"


def test_a_default_without_a_hold_out_run_is_an_error():
    with pytest.raises(ValueError, match="the default arm 'linear' has no hold-out run"):
        make_choice(comparison_of({"linear": BASE, "etf": GAIN}), {"etf": 0.5})


def test_only_arms_with_a_score_at_every_seed_can_be_candidates(tmp_path):
    for seed, scores in enumerate([{"a": 0.5, "b": 0.9, "c": None, "d": 0.2}, {"a": 0.7, "c": 0.1, "d": "0.9"}]):
        (tmp_path / f"{seed}.json").write_text(json.dumps({"scores": scores}))
    assert holdout_scores(tmp_path / f"{seed}.json" for seed in range(2)) == {"a": pytest.approx(0.6)}


def test_of_equal_arms_the_same_one_is_the_candidate_in_every_process(tmp_path):
    names = [f"arm {i}" for i in range(40)]  # a set of them has another order in every process
    (tmp_path / "0.json").write_text(json.dumps({"scores": dict.fromkeys(names, 0.5)}))
    assert list(holdout_scores([tmp_path / "0.json"])) == names


@pytest.mark.slow
def test_equal_arms_are_confirmed_no_more_often_than_the_level():
    """No arm is better; hold-out and test noise are independent: at most 2.5 % of the choices (one side of 5 %)."""
    random = np.random.default_rng(0)
    arms, seeds, repetitions, confirmed = 12, 6, 600, 0
    for _ in range(repetitions):
        holdout = {f"arm{i}": float(0.5 + 0.01 * random.normal()) for i in range(arms)}
        values = {f"arm{i}": (0.5 + 0.01 * random.normal(size=seeds)).tolist() for i in range(arms)}
        confirmed += make_choice(comparison_of(values), holdout).confirmed
    assert confirmed <= 0.025 * repetitions + 3 * (0.025 * 0.975 * repetitions) ** 0.5, confirmed


def test_class_effects_are_mean_differences_of_recall():
    ours = [(0.9, 0.5, 0.30), (0.9, 0.6, 0.31), (0.9, 0.5, 0.29), (0.9, 0.4, 0.30), (0.9, 0.55, 0.31)]
    theirs = [(0.9, 0.5, 0.10), (0.9, 0.5, 0.12), (0.9, 0.55, 0.11), (0.9, 0.5, 0.10), (0.9, 0.5, 0.10)]
    runs = [run_of("new", s, 0.5 + 0.01 * s, recall=r) for s, r in enumerate(ours)]
    runs += [run_of("old", s, 0.5, recall=r) for s, r in enumerate(theirs)]
    effects = class_effects(compare_runs(runs, "old", experiment=Experiment(primary=KEY)), "new", "old")
    assert [(e.name, e.sure, e.train_count) for e in effects] == [("c", True, 12), ("a", False, 40), ("b", False, 24)]
    assert effects[0].difference == pytest.approx(np.mean([o[2] - t[2] for o, t in zip(ours, theirs, strict=True)]))


def test_the_sentences_say_what_to_use_how_sure_which_classes_calibration_and_cost():
    runs = [run_of("linear_la", s, v, recall=(0.9, 0.5, 0.1 + 0.01 * s)) for s, v in enumerate(BASE)]
    runs += [run_of("cosine_la", s, v, recall=(0.8, 0.5, 0.4 + 0.011 * s)) for s, v in enumerate(GAIN)]
    comparison = compare_runs(runs, experiment=Experiment(arms=("linear_la", "cosine_la"), primary=KEY))
    text = " ".join(choice_sentences(make_choice(comparison, {"linear_la": 0.5, "cosine_la": 0.6}), comparison))
    assert "Use cosine_la: the cosine head with logit adjustment." in text
    assert "the test set, read once, confirms it: +5.4 points" in text
    assert "against linear_la, n = 5 seeds" in text
    assert "it helps 1 of 3 classes: c +30.2 (12 training samples)" in text
    assert "it costs 1: a -10.0 (40 training samples)" in text
    assert "off by 10.0 points on average (ECE), and by 1.0 with the temperature from the hold-out, which is" in text
    assert "it has 50 parameters" in text


def test_the_default_is_explained_too():
    comparison = comparison_of({"linear": BASE, "etf": [v - 0.01 * i for i, v in enumerate(BASE)]})
    text = " ".join(choice_sentences(make_choice(comparison, {"linear": 0.5, "etf": 0.6}), comparison))
    assert "Use linear: the linear head." in text
    assert (
        "It is the default. etf did better on the hold-outs (etf 60.0, linear 50.0), but the test set does not" in text
    )
    text = " ".join(choice_sentences(make_choice(comparison, {"linear": 0.5, "etf": 0.4}), comparison))
    assert "no other arm did better on the hold-outs" in text


def test_arms_for_imbalance_come_with_imbalanced_data_only():
    assert (is_imbalanced((100, 10)), is_imbalanced((60, 50))) == (True, False)
    uneven, even = head_arms(OPTIONS, imbalanced=True), head_arms(OPTIONS, imbalanced=False)
    assert next(iter(uneven)) == "linear_la"
    assert next(iter(even)) == "linear"
    assert not any(issubclass(arm.loss.cls, LogitAdjustedLoss) for arm in even.values())
    assert {"linear", "linear_la", "linear_balanced_softmax", "cosine", "cosine_la", "etf_la", "etf_dr"} <= set(uneven)
    assert {"nearest_etf_la", "simplex_la", "random_la", "least_squares_start_la", "linear_tau"} <= set(uneven)
    assert {"class_means", "k_means", "linear_gce", "linear_sce", "linear_elr", "linear_relaxation"} <= set(uneven)
    assert uneven["linear"].loss == spec(CrossEntropyLoss)
    assert set(WORDS) == set(uneven) | set(even), "every arm is explained in words"


def test_trained_arms_have_equal_budgets_and_the_same_data():
    arms = head_arms(OPTIONS, imbalanced=True)
    trained = [arm for arm in arms.values() if not arm.is_closed_form]
    assert len({len(arm.tuned.values) for arm in trained}) == 1
    assert all(len(arm.tuned.values) >= 10 for name, arm in arms.items() if name in ("k_means", "logistic"))
    assert len({repr(replace(arm.training, epochs=1)) for arm in arms.values()}) == 1
    assert len({repr((arm.data, arm.model)) for arm in arms.values()}) == 1


def test_which_arms_run():
    arms = head_arms(OPTIONS, imbalanced=True)
    assert "logistic" not in choose_arms(arms, None, noisy=True)
    assert "linear_gce" not in choose_arms(arms, None, noisy=False)
    assert "linear_gce" in choose_arms(arms, None, noisy=True)
    assert list(choose_arms(arms, "all", noisy=False)) == list(arms)
    assert list(choose_arms(arms, "etf_la, cosine", noisy=False)) == ["linear_la", "cosine", "etf_la"]
    with pytest.raises(ValueError, match="there is no arm 'eft_la'; did you mean 'etf_la'"):
        choose_arms(arms, "eft_la", noisy=False)


def test_torch_is_seeded_by_runs_alone():
    """Building the arms draws nothing from the global generator."""
    before = torch.get_rng_state()
    head_arms(OPTIONS, imbalanced=True)
    assert torch.equal(before, torch.get_rng_state())


def test_settings_can_refine_what_a_flag_names():
    """The near set is a flag's; the classes to leave out of it are a setting."""
    options = ChooseOptions(
        data="digits", ood_near="imagefolder:near", settings=["data.ood_near_exclude=names.csv", "data.imbalance=5"]
    )
    config = data_config(options, {"ood_near": options.ood_near, "imbalance": 9.0})
    assert (config.ood_near, config.ood_near_exclude, config.imbalance) == ("imagefolder:near", "names.csv", 5)


def test_several_views_come_with_the_augmentation_of_recipes():
    """By the flag and by a setting; a setting can change it. One view has none."""
    for options in (
        ChooseOptions(data="digits", views=4),
        ChooseOptions(data="digits", settings=["data.views=4"]),
        ChooseOptions(data="digits", views=4, settings=["data.flip=true"]),
    ):
        config = data_config(options)
        flip = True if options.views == 4 and options.settings else None
        assert (config.views, config.crop_padding, config.flip) == (4, None, flip)
    assert data_config(ChooseOptions(data="digits")) == plain_data("digits")
