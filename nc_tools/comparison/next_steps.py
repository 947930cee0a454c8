"""What to do after a comparison, in at most three lines with commands that can be copied."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable

from nc_tools.comparison.pairing import name_seeds
from nc_tools.comparison.result import ArmTest, Comparison

_MOST_SEEDS = 1000


def next_steps(comparison: Comparison, command: str, *, details: bool = False) -> list[str]:
    """Return what to do next: finish or add runs, or take the best arm; another baseline; the tests in detail.

    Args:
        comparison: The comparison.
        command: The command that compares the same runs, such as ``nc-tools compare outputs/long_tail``.
        details: Whether the details were printed already.
    """
    steps = [_first_step(comparison)]
    references = comparison.experiment.references
    other = next((arm for arm in dict.fromkeys(references.values()) if arm in comparison.cells), None)
    other = other or next(iter(comparison.ranked), None)
    if other is not None and other != comparison.baseline and len(comparison.cells) > 2:
        steps.append(f"a report against another arm, beside this one: {command} --baseline {shlex.quote(other)}")
    if not details:
        own = comparison.baseline == (comparison.experiment.baseline or comparison.arms[0])
        same = "" if own else f" --baseline {shlex.quote(comparison.baseline)}"
        steps.append(f"tests, what they could detect, and variances: {command}{same} --details")
    return [step for step in steps if step]


def _first_step(comparison: Comparison) -> str:
    family = comparison.family
    if family.withheld:
        return "give the same command without --smoke and with another --out for numbers that count"
    if any(state.missing or state.unfinished for state in comparison.states):
        return "finish the missing runs: give the recipe's command again with --resume"
    better = [test for test in family.tests if family.verdict(test) == "better" and test.paired is not None]
    if better:
        best = max(better, key=_gain(comparison))
        run = next(iter(comparison.cells[best.arm].values()))
        if run.kind == "final" and run.folder is not None:
            return f"use {best.arm}: nc-tools export {shlex.quote(str(run.folder))} --to onnx --out exports/model"
        return f"use {best.arm}"
    return _more_seeds(comparison, [test for test in family.tests if test.paired is not None])


def _more_seeds(comparison: Comparison, tests: list[ArmTest]) -> str:
    """Return how many seeds would show half of the largest observed gain; "" if there is nothing to advise."""
    ahead = [test for test in tests if _gain(comparison)(test) > 0 and test.power is not None]
    seeds = comparison.state(comparison.baseline).seeds
    if not ahead or not seeds:
        return ""
    best = max(ahead, key=_gain(comparison))
    pairs = best.power.pairs_for_half_adjusted if best.power is not None else None
    if pairs is None and comparison.family.covers_images and best.frames != "crossed":
        return (
            f"no number of seeds alone would show half of the gain of {best.arm}: its interval is mostly that of the "
            "test images. Use more test images"
        )
    if pairs is None or pairs > _MOST_SEEDS or best.paired is None or pairs <= best.paired.n:
        return ""
    half = comparison.primary.difference(best.paired.mean / 2)
    wanted = name_seeds(range(seeds[0], seeds[0] + pairs))
    return (
        f"{pairs} seeds would show half of the gain of {best.arm} ({half}): the recipe's command again with "
        f"--seeds {wanted}"
    )


def _gain(comparison: Comparison) -> Callable[[ArmTest], float]:
    """Return a function from a test to its gain, which is positive if the arm's mean is better."""
    sign = -1.0 if comparison.primary.direction == "lower" else 1.0
    return lambda test: sign * test.paired.mean if test.paired is not None else -math.inf
