"""Hundreds of metrics at once have the means, spreads and intervals of one metric after the other."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.comparison import metric_rows as module
from nc_tools.comparison.compare import compare_runs
from nc_tools.comparison.compared_run import ComparedRun

PRIMARY = "test/gen/balanced_accuracy"


def frame_seed(design, seed, draw):
    seeds = {"none": None, "own": 10 * seed + draw, "fixed": 7, "shared": seed // 2, "unknown": "unknown"}
    return seeds[design]


class NoneAtOnce:
    """Reads every metric on its own."""

    def __init__(self, *_, **__):
        self.metrics = {}


@st.composite
def runs_of_arms(draw):
    """Runs of three arms: frames of every design, seeds and values missing, images of other data at some seeds."""
    number = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 3))
    made = []
    for arm in ("linear", "etf", "other"):
        design = draw(st.sampled_from(["none", "own", "fixed", "shared", "unknown"]))
        draws = draw(st.sampled_from([1, 1, 1, 2]))
        for seed in sorted(draw(st.sets(st.integers(0, 5), min_size=2, max_size=6))):
            data = {"fingerprint": draw(st.sampled_from(["a", "a", "a", "b"]))}
            for number_of_draw in range(draws):
                final = {key: draw(number) for key in (PRIMARY, "own/first", "own/second")}
                if draw(st.integers(0, 9)) == 0:
                    final["own/second"] = math.nan
                final["own/constant"] = 1.0
                made.append(
                    ComparedRun(
                        arm,
                        seed,
                        number_of_draw,
                        "FINISHED",
                        final,
                        data=data,
                        frame_seed=frame_seed(design, seed, number_of_draw),
                    )
                )
    return made


def shown(row):
    numbers = (row.mean, row.sd)
    paired = row.paired
    if paired is not None:
        numbers += (paired.n, paired.mean, paired.sd, paired.low, paired.high, paired.p, *paired.differences)
    return [math.nan if value is None else value for value in numbers]


def compared(runs):
    try:
        return compare_runs(runs, "linear").rows
    except ValueError:  # nothing can be paired
        return ()


@given(runs_of_arms())
@settings(max_examples=150, deadline=None)
@pytest.mark.slow
def test_all_at_once_is_one_after_the_other(runs):
    at_once = compared(runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CompleteMetrics", NoneAtOnce)
        single = compared(runs)
    for one, other in zip(at_once, single, strict=True):
        assert (one.arm, one.metric, one.seeds, one.draws) == (other.arm, other.metric, other.seeds, other.draws)
        assert shown(one) == pytest.approx(shown(other), rel=1e-12, abs=1e-13, nan_ok=True), (one, other)


def test_most_metrics_are_read_at_once():
    made = [
        ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: 0.5 + 0.1 * seed, "own/first": 1.0 * seed})
        for arm in ("linear", "etf")
        for seed in range(3)
    ]
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "frame_differences", lambda *sides: asked.append(sides))
        (_, first, _, second) = compare_runs(made, "linear").rows
    assert [row.metric for row in (first, second)] == [PRIMARY, "own/first"]
    assert asked == []
    assert second.paired.differences == (0.0, 0.0, 0.0)
