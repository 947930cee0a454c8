"""The promises of a verdict, simulated through `compare_runs` itself: coverage of intervals, rate of false verdicts."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from support.simulated_comparisons import World, simulate

from nc_tools.comparison import compare_runs

ARMS = ("a", "b", "c")
REPETITIONS = 1000

NORMAL = {
    "3 seeds, a frame each": World(3, frame=1.0),
    "5 seeds, a frame each": World(5, frame=1.0),
    "5 seeds, frames differ more than seeds": World(5, seed=0.3, frame=1.0),
    "10 seeds, a frame each": World(10, frame=1.0),
    "5 seeds, three frames each": World(5, frame=1.0, draws=3),
    "5 seeds, no frames": World(5),
    "3 seeds, a frame each, runs missing": World(3, frame=1.0, missing=0.1),
    "5 seeds, a frame each, runs missing": World(5, frame=1.0, missing=0.1),
    "10 seeds, a frame each, runs missing": World(10, frame=1.0, missing=0.1),
    "3 seeds and images": World(3, seed=0.3, frame=0.2, image=10.0),
    "5 seeds and images": World(5, seed=0.5, frame=0.5, image=10.0),
    "5 seeds, small image effects": World(5, seed=1.0, frame=0.5, image=3.0),
    "10 seeds and images": World(10, seed=0.5, frame=0.5, image=5.0),
    "5 seeds and images, runs missing": World(5, seed=0.5, frame=0.5, image=10.0, missing=0.1),
}
# Seeds -> coverage where the effects of frames are log-normal and larger than all others.
SKEWED = {3: 0.93, 5: 0.90, 10: 0.90}


@pytest.fixture(autouse=True)
def _without_power(monkeypatch):
    """Leave out the power of a test, half of the work of a comparison: no interval or verdict depends on it."""
    monkeypatch.setattr("nc_tools.comparison.families._power", lambda *_: None)


def rates(world, repetitions=REPETITIONS):
    """Return the coverage of the intervals, and the number of comparisons with at least one verdict."""
    generator = np.random.default_rng(7)
    covered, verdicts = [], 0
    for _ in range(repetitions):
        runs = simulate(world, ARMS, generator)
        try:
            family = compare_runs(runs, "linear").family
        except ValueError:  # no finished run of the baseline, or no common seed
            continue
        intervals = [test.paired for test in family.tests if test.paired is not None and test.paired.low is not None]
        covered += [one.low <= 0 <= one.high for one in intervals]
        verdicts += any(family.verdict(test) != "open" for test in family.tests)
    return float(np.mean(covered)), verdicts


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMAL)
def test_intervals_cover_and_verdicts_are_false_no_more_often_than_they_say(name):
    coverage, verdicts = rates(NORMAL[name])
    assert 0.93 <= coverage <= 0.972, coverage  # .971 with images at three seeds, at most .964 elsewhere
    # At most nominal: more than this many of 1000 happen with chance 1e-3 if the true rate is .05.
    assert verdicts <= binom.ppf(0.999, REPETITIONS, 0.05), verdicts


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_heavy_tails_cost_no_coverage(seeds):
    coverage, verdicts = rates(World(seeds, frame=1.0, heavy=True))
    assert 0.93 <= coverage <= 0.98, coverage
    assert verdicts <= binom.ppf(0.999, REPETITIONS, 0.05), verdicts


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "stated"), SKEWED.items())
def test_skewed_frames_are_covered_as_the_documentation_states(seeds, stated):
    """Reported and not promised: an interval from a few skewed differences is too short on one side."""
    coverage, _ = rates(World(seeds, seed=0.3, frame=2.0, skewed=True))
    assert coverage == pytest.approx(stated, abs=0.02)
    text = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"{100 * stated:.0f} % with {seeds}" in text


@pytest.mark.slow
def test_crossed_frames_of_old_records_are_covered_too():
    coverage, verdicts = rates(World(5, frame=1.0, draws=3, rule="crossed"))
    assert 0.93 <= coverage <= 0.97, coverage
    assert verdicts <= binom.ppf(0.999, REPETITIONS, 0.05), verdicts


@pytest.mark.slow
def test_one_frame_for_all_seeds_is_not_covered_and_the_headline_says_so():
    """The check of the checks: this design fails the rates that the others keep."""
    from nc_tools.comparison.headline import headline

    world = World(5, seed=0.3, frame=1.0, rule="fixed")
    coverage, verdicts = rates(world, 300)
    assert coverage < 0.75
    assert verdicts > 60
    text = headline(compare_runs(simulate(world, ARMS, np.random.default_rng(0)), "linear"))
    assert "those of a, b and c hold for the one frame that all seeds share only" in text


@pytest.mark.slow
def test_an_interval_over_seeds_alone_does_not_cover_new_images():
    """The check of the checks for images: without the values by image the same world is not covered."""
    from dataclasses import replace

    world, generator = NORMAL["5 seeds and images"], np.random.default_rng(7)
    covered = []
    for _ in range(300):
        runs = [replace(run, images=None) for run in simulate(world, ARMS, generator)]
        covered += [t.paired.low <= 0 <= t.paired.high for t in compare_runs(runs, "linear").family.tests]
    assert np.mean(covered) < 0.9
