"""Choosing rates and tuned values by a score that is a formula."""

import math
from dataclasses import replace

import pytest

from nc_tools.experiment import Protocol, RunConfig, TunedParameter
from nc_tools.experiment.tuning import mean_over_seeds, tune
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.specs import spec
from nc_tools.training import ClassMeanStart, LeastSquaresStart

BASE = RunConfig(head=spec(LinearHead), loss=spec(CrossEntropyLoss))
SCALED = replace(BASE, head=spec(ETFHead), tuned=TunedParameter(path="head.scale", values=(4.0, 16.0)))
RATES = (0.01, 0.0316, 0.1, 0.316, 1.0)


def peak(at):
    """A score that is best at one rate; weight decay and scale change nothing."""
    return lambda config: 1 - abs(math.log10(config.optim.lr / at)) / 10


class Runs:
    """Scores trials with one function for each arm, and keeps the settings of each call."""

    def __init__(self, **scores):
        self.scores, self.calls = scores, []

    def __call__(self, settings):
        self.calls.append([(arm, config) for arm, config in settings])
        return [self.scores[arm](config) for arm, config in settings]

    def rates(self, arm):
        return [c.optim.lr for call in self.calls for a, c in call if a == arm]


def test_every_arm_gets_the_same_rates_and_its_own_best():
    runs = Runs(a=peak(0.03), b=peak(0.3))
    tuned = tune({"a": BASE, "b": BASE}, Protocol(rates=RATES), runs)
    assert tuned.grid == list(RATES)
    assert (tuned.configs["a"].optim.lr, tuned.configs["b"].optim.lr) == (0.0316, 0.316)
    assert sorted(runs.rates("a")[:5]) == sorted(runs.rates("b")[:5]) == list(RATES)
    assert tuned.notes == []
    assert len(runs.calls) == 2  # rates, then tuned values


@pytest.mark.parametrize(("at", "new"), [(1.9, 3.16), (0.004, 0.00316)], ids=["upper", "lower"])
def test_a_winner_at_the_edge_extends_the_grid_for_all_arms_on_that_side(at, new):
    runs = Runs(a=peak(0.1), b=peak(at))
    tuned = tune({"a": BASE, "b": BASE}, Protocol(rates=RATES, max_extensions=1), runs)
    assert [(arm, c.optim.lr) for arm, c in runs.calls[1]] == [("a", new), ("b", new)]
    assert tuned.grid == sorted([*RATES, new])
    assert tuned.configs["a"].optim.lr == 0.1
    assert tuned.configs["b"].optim.lr == new
    edge = "upper" if new > 1 else "lower"
    assert tuned.notes == [f"b: its best learning rate {new} is still the {edge} edge of the grid"]


def test_an_extension_that_loses_takes_the_winner_off_the_edge():
    tuned = tune({"a": BASE}, Protocol(rates=RATES, max_extensions=5), Runs(a=peak(1.0)))
    assert tuned.configs["a"].optim.lr == 1.0
    assert tuned.grid == [*RATES, 3.16]
    assert tuned.notes == []


def test_both_sides_may_grow_at_once_and_only_so_often():
    runs = Runs(a=peak(1e-9), b=peak(1e9))
    tuned = tune({"a": BASE, "b": BASE}, Protocol(rates=RATES, max_extensions=2), runs)
    assert tuned.grid == pytest.approx([0.001, 0.00316, *RATES, 3.16, 10.0], rel=1e-12)
    assert len(tuned.notes) == 2
    assert tune({"a": BASE}, Protocol(rates=RATES, max_extensions=0), Runs(a=peak(9e9))).grid == list(RATES)


def test_budgets_are_equal_whatever_the_arms_do():
    runs = Runs(a=peak(1e9), b=peak(0.1), c=lambda c: None if c.optim.lr > 0.05 else 0.5)
    tuned = tune({"a": BASE, "b": SCALED, "c": BASE}, Protocol(rates=RATES, max_extensions=2), runs)
    counts = {arm: len([t for t in tuned.trials if t.arm == arm]) for arm in "abc"}
    assert counts == {"a": 9, "b": 9, "c": 9}


def test_unequal_budgets_are_refused_before_any_trial():
    runs = Runs(a=peak(0.1), b=peak(0.1))
    with pytest.raises(ValueError, match=r"same number of trials, got a 2, b 1"):
        tune({"a": BASE, "b": replace(BASE, tuned=TunedParameter(values=(1e-3,)))}, Protocol(), runs)
    assert runs.calls == []


def test_ties_go_to_the_middle_of_the_grid_and_to_the_configured_value():
    tuned = tune({"a": BASE}, Protocol(rates=RATES), Runs(a=lambda _: 0.5))
    assert tuned.configs["a"].optim.lr == 0.1
    assert tuned.configs["a"].optim.weight_decay == BASE.optim.weight_decay
    assert tuned.notes == []


def test_a_score_of_zero_is_a_score():
    tuned = tune({"a": BASE}, Protocol(rates=RATES), Runs(a=lambda _: 0.0))
    assert tuned.configs["a"].optim.lr == 0.1


def test_the_tuned_parameter_is_tried_at_the_best_rate_and_wins_only_if_better():
    def score(config):
        scale = config.head.arguments.get("scale")
        return peak(0.316)(config) + {None: 0.0, 4.0: 0.05, 16.0: -0.05}[scale]

    runs = Runs(a=peak(0.1), b=score)
    tuned = tune({"a": BASE, "b": SCALED}, Protocol(rates=RATES), runs)
    tried = [(arm, c.optim.lr, c.optim.weight_decay, c.head.arguments.get("scale")) for arm, c in runs.calls[-1]]
    assert tried == [("a", 0.1, 5e-5, None), ("a", 0.1, 5e-3, None), ("b", 0.316, 5e-4, 4.0), ("b", 0.316, 5e-4, 16.0)]
    assert tuned.configs["b"].head.arguments == {"scale": 4.0}
    assert tuned.configs["b"].optim.lr == 0.316
    written = tuned.to_json()
    assert written["chosen"]["b"] == {"lr": 0.316, "head.scale": 4.0}
    assert written["chosen"]["a"] == {"lr": 0.1, "optim.weight_decay": 5e-4}
    assert written["grid"] == list(RATES)


def test_a_rate_at_which_training_diverged_is_no_edge():
    runs = Runs(a=lambda c: None if c.optim.lr > 0.2 else peak(10.0)(c))
    tuned = tune({"a": BASE}, Protocol(rates=RATES), runs)
    assert tuned.configs["a"].optim.lr == 0.1
    assert tuned.grid == list(RATES)
    failed = [t.to_json() for t in tuned.trials if t.score is None]
    assert [t["lr"] for t in failed] == [0.316, 1.0]
    assert {t["status"] for t in failed} == {"FAILED"}


def test_an_arm_without_any_score_drops_out_and_is_named():
    runs = Runs(a=peak(0.1), b=lambda _: None)
    tuned = tune({"a": BASE, "b": BASE}, Protocol(rates=RATES), runs)
    assert list(tuned.configs) == ["a"]
    assert tuned.notes == ["b: no tuning trial gave a score"]
    assert "b" not in [arm for arm, _ in runs.calls[-1]]


def test_a_diverged_value_does_not_win():
    runs = Runs(a=lambda c: None if c.optim.weight_decay != 5e-4 else peak(0.1)(c))
    assert tune({"a": BASE}, Protocol(rates=RATES), runs).configs["a"].optim.weight_decay == 5e-4


def test_what_an_arm_was_configured_with_does_not_decide_its_rate():
    started = replace(BASE, optim=replace(BASE.optim, lr=0.77))
    tuned = tune({"a": started}, Protocol(rates=RATES), Runs(a=peak(0.1)))
    assert tuned.configs["a"].optim.lr == 0.1
    assert 0.77 not in tuned.grid


def test_a_mean_over_seeds_needs_all_of_them():
    assert mean_over_seeds([0.2, 0.4, 0.5, None, None, None], 2) == [pytest.approx(0.3), None, None]


CLOSED = replace(
    BASE,
    start=LeastSquaresStart(ridge=0.1),
    training=replace(BASE.training, epochs=0),
    tuned=TunedParameter(path="start.ridge", values=(0.01, 1.0, 0.001, 10.0, 1e-4, 100.0, 1e-5, 1e3, 1e-6, 1e4)),
)
ONCE = replace(CLOSED, start=ClassMeanStart(), tuned=TunedParameter(values=()))


def ridge_peak(at):
    return lambda config: 1 - abs(math.log10(config.start.ridge / at)) / 10


@pytest.mark.parametrize(("best_rate", "settings"), [(0.1, 7), (3.16, 9)], ids=["no extension", "two extensions"])
def test_a_head_in_closed_form_tries_as_many_values_as_the_others_try_settings(best_rate, settings):
    runs = Runs(linear=peak(best_rate), ls=ridge_peak(1.0), ncm=lambda _: 0.5)
    arms = {"ls": CLOSED, "linear": BASE, "ncm": ONCE}
    tuned = tune(arms, Protocol(rates=RATES), runs)
    counts = {arm: len([t for t in tuned.trials if t.arm == arm]) for arm in arms}
    assert counts == {"ls": settings, "linear": settings, "ncm": 1}
    assert [t.lr for t in tuned.trials if t.arm != "linear"] == [None] * (settings + 1)
    assert tuned.configs["ls"].start.ridge == 1.0
    assert list(tuned.configs) == ["ls", "linear", "ncm"]
    assert tuned.to_json()["chosen"]["ls"] == {"start.ridge": 1.0}
    assert set(tuned.to_json()["chosen"]["linear"]) == {"lr", "optim.weight_decay"}


def test_a_head_in_closed_form_at_the_edge_of_its_values_is_noted():
    tuned = tune({"linear": BASE, "ls": CLOSED}, Protocol(rates=RATES), Runs(linear=peak(0.1), ls=ridge_peak(1e9)))
    assert tuned.notes == ["ls: its best start.ridge 100.0 is the largest that was tried"]


def test_heads_in_closed_form_alone_and_one_that_always_fails():
    tuned = tune({"ls": CLOSED, "ncm": ONCE}, Protocol(rates=RATES), Runs(ls=ridge_peak(0.1), ncm=lambda _: None))
    assert list(tuned.configs) == ["ls"]
    assert tuned.notes == ["ncm: no tuning trial gave a score"]
