"""What a report says about its intervals: seeds, frames, images, and what seeds do not change."""

from dataclasses import replace

import pytest
from support.compared_runs import BETTER, LINEAR, run, runs

from nc_tools.comparison import Experiment, compare_runs, long_rows
from nc_tools.comparison.wording import coverage_text, seed_sources_text


def with_data(made, **data):
    return [replace(one, data={"fingerprint": "f", "class_counts": [3, 2], **data}) for one in made]


@pytest.mark.parametrize(("samples", "noise", "says"), [(5, None, True), (9, None, False), (5, {"rate": 0.4}, False)])
def test_seeds_of_a_set_that_is_used_whole_do_not_change_the_images(samples, noise, says):
    made = [
        replace(one, config={"data": {"noise": noise}})
        for one in with_data(runs(linear=LINEAR, etf=BETTER), num_samples=samples)
    ]
    comparison = compare_runs(made, "linear")
    assert bool(seed_sources_text(comparison)) == says


def test_repeated_splits_widen_the_interval_as_nadeau_and_bengio_do():
    made = runs(linear=LINEAR, etf=BETTER)
    plain = compare_runs(made, "linear").test("etf").paired
    comparison = compare_runs(made, "linear", experiment=Experiment(protocol={"test_per_train": 0.25}))
    wide = comparison.test("etf").paired
    assert wide.error**2 == pytest.approx((1 / 5 + 0.25) * plain.sd**2)
    assert wide.df == 4
    assert "another split into training and test images" in coverage_text(comparison.family)
    assert "on these test images" not in coverage_text(comparison.family)


def test_the_rows_say_what_their_interval_covers():
    made = [*runs(linear=LINEAR), *(run("etf", s, v, frame_seed=100 + s) for s, v in enumerate(BETTER))]
    comparison = compare_runs(made, "linear")
    assert coverage_text(comparison.family) == (
        "The intervals cover training with another seed and another frame, on these test images"
    )
    assert [row["covers"] for row in long_rows(comparison)] == [None, "seeds, frames"]
