"""Families of tests: adjusted together, with power at the family's own level."""

import numpy as np
import pytest
from scipy.stats import t
from support.compared_runs import BETTER, LINEAR, PRIMARY, SAME, WORSE, runs
from support.simulated_comparisons import World, simulate

from nc_tools.comparison import ComparedRun, compare_runs
from nc_tools.comparison.power import detectable_difference, pairs_needed
from nc_tools.comparison.read_experiment import Experiment
from nc_tools.comparison.references import loss_kind

NOISY = {"linear": [0.7, 0.71, 0.69, 0.70], "up": [0.74, 0.70, 0.71, 0.73]}


def test_the_family_is_corrected_together():
    comparison = compare_runs(runs(linear=LINEAR, etf=BETTER, same=SAME, worse=WORSE), "linear")
    raw = {test.arm: test.paired.p for test in comparison.family.tests}
    assert comparison.family.size == 3
    assert comparison.test("etf").p_holm == pytest.approx(3 * min(raw.values())) or raw["etf"] != min(raw.values())
    assert comparison.test("same").p_holm == pytest.approx(raw["same"])
    assert [comparison.family.verdict(test) for test in comparison.family.tests] == ["better", "open", "worse"]


def test_all_runs_alike_are_handled():
    comparison = compare_runs(runs(linear=LINEAR, copy=LINEAR, etf=BETTER), "linear")
    assert comparison.test("copy").p_holm is None
    assert comparison.family.size == 1
    assert "identical" in comparison.test("copy").paired.note


def test_power_is_at_the_level_of_the_family():
    comparison = compare_runs(runs(linear=LINEAR[:3], up=BETTER[:3], down=WORSE[:3]), "linear")
    test = comparison.test("up")
    sd = test.paired.sd
    assert test.power.detectable == pytest.approx(detectable_difference(sd / 3**0.5, 2, alpha=0.05))
    assert test.power.detectable_adjusted == pytest.approx(detectable_difference(sd / 3**0.5, 2, alpha=0.025))
    assert test.power.pairs_for_half == pairs_needed(test.paired.mean / 2, sd, alpha=0.05)
    assert test.power.pairs_for_half_adjusted == pairs_needed(test.paired.mean / 2, sd, alpha=0.025)


def test_seeds_for_a_wanted_width_keep_their_promise():
    """With that many seeds of the same spread the interval has the width, and with one fewer it has not."""
    test = compare_runs(runs(linear=LINEAR, etf=SAME), "linear").test("etf")
    needed, sd = test.power.pairs_for_half_width, test.paired.sd
    assert test.power.half_width == 0.01
    assert t.ppf(0.975, needed - 1) * sd / needed**0.5 <= 0.01 < t.ppf(0.975, needed - 2) * sd / (needed - 1) ** 0.5


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_what_seeds_do_not_reduce_is_the_variance_of_the_test_images(seeds):
    """Images vary with variance 9 in each of two arms, 100 of them; what seed and image have together averages out."""
    world = World(seeds=seeds, image=3.0, images=100)
    generator = np.random.default_rng(seeds)
    tests = [compare_runs(simulate(world, ["etf"], generator), "linear").test("etf") for _ in range(40)]
    assert np.mean([test.paired.fixed for test in tests]) == pytest.approx(2 * 9 / 100, rel=0.15)
    for test in tests:
        assert 0 < test.paired.fixed < test.paired.error**2
        assert test.same_images.fixed == 0


def test_half_of_the_difference_needs_more_pairs_than_all_of_it():
    runs = [ComparedRun(arm, s, 0, "FINISHED", {PRIMARY: v}) for arm, vs in NOISY.items() for s, v in enumerate(vs)]
    test = compare_runs(runs, "linear").test("up")
    mean, sd = test.paired.mean, test.paired.sd
    assert test.power.pairs_for_half == pairs_needed(mean / 2, sd) > pairs_needed(mean, sd)
    assert test.power.pairs_for_half_adjusted == pairs_needed(mean / 2, sd)


def test_a_reference_with_another_loss_is_not_tested():
    def loss(name, **arguments):
        return {"loss": {"class": f"nc_tools.losses.{name}", "arguments": arguments}}

    configs = {"linear_la": loss("LA", tau=1.0), "etf_la": loss("LA", tau=0.5), "etf_dr": loss("DR"), "random_la": {}}
    runs = [
        ComparedRun(arm, seed, 0, "FINISHED", {"test/gen/balanced_accuracy": 0.7 + 0.01 * seed}, config=config)
        for arm, config in configs.items()
        for seed in range(3)
    ]
    references = dict.fromkeys(("etf_la", "etf_dr", "random_la"), "linear_la")
    comparison = compare_runs(runs, "linear_la", experiment=Experiment(protocol={"references": references}))
    assert [test.arm for test in comparison.controls.tests] == ["etf_la", "random_la"]  # numbers may differ
    assert "etf_dr is not tested against its reference linear_la: their losses differ" in comparison.notes


@pytest.mark.parametrize(
    ("recorded", "kind"),
    [
        ({"class": "A", "arguments": {"loss": {"class": "B"}, "gamma": 2}}, ("A", (("loss", ("B", ())),))),
        ({"class": "A", "arguments": [1]}, ("A", ())),
        ({"class": "A", "arguments": 5}, ("A", ())),
        ({"class": "A", "arguments": "x"}, ("A", ())),
        ({"class": "A", "arguments": True}, ("A", ())),
        ({"class": ["A"]}, ("['A']", ())),
        (5, None),
        ({"arguments": {}}, None),
    ],
)  # fmt: skip
def test_a_record_may_hold_anything_for_its_loss(recorded, kind):
    assert loss_kind(recorded) == kind


def test_where_the_record_names_no_loss_the_plan_is_believed():
    configs = {"linear": {"loss": {"class": "A", "arguments": {}}}, "etf": {"loss": 5}}
    runs = [ComparedRun(arm, 0, 0, "FINISHED", {PRIMARY: 0.7}, config=config) for arm, config in configs.items()]
    comparison = compare_runs(runs, "linear", experiment=Experiment(protocol={"references": {"etf": "linear"}}))
    assert [test.arm for test in comparison.controls.tests] == ["etf"]
    assert not [note for note in comparison.notes if "losses differ" in note]
