"""Make families of tests: each arm against its reference arm, p values adjusted together, power estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nc_tools.comparison.pairing import Cells, pair_by_seed, seed_means
from nc_tools.comparison.power import detectable_difference, pairs_needed
from nc_tools.comparison.result import ALPHA, ArmTest, Family, PowerEstimate
from nc_tools.comparison.statistics import holm, paired_difference, sign_flip


def make_family(name: str, cells: Cells, metric: str, references: Mapping[str, str]) -> Family:
    """Test each arm against its reference arm on one metric, and adjust the p values together.

    Args:
        name: What the family compares, in words.
        cells: The runs of each arm.
        metric: The metric's key.
        references: arm -> the arm that it is paired against.
    """
    tests = [_test(arm, reference, cells, metric) for arm, reference in references.items()]
    p_values = [test.paired.p for test in tests if test.paired is not None and test.paired.p is not None]
    adjusted = iter(holm(p_values))
    complete = []
    for test in tests:
        paired = test.paired
        if paired is None or paired.p is None:
            complete.append(test)
        else:
            power = _power(paired.mean, paired.sd or 0.0, paired.n, len(p_values))
            complete.append(replace(test, p_holm=next(adjusted), power=power))
    return Family(name, metric, tuple(complete))


def _test(arm: str, reference: str, cells: Cells, metric: str) -> ArmTest:
    values, expected = (seed_means(cells.get(name, {}), metric) for name in (arm, reference))
    pairs = pair_by_seed(values, expected)
    paired = paired_difference(pairs.arm, pairs.reference) if pairs.seeds else None
    flipped = sign_flip(paired.differences) if paired is not None else None
    return ArmTest(arm, reference, pairs.seeds, paired, None, None, flipped)


def _power(mean: float, sd: float, n: int, family_size: int) -> PowerEstimate:
    strictest = ALPHA / family_size
    return PowerEstimate(
        detectable_difference(sd, n, alpha=ALPHA),
        detectable_difference(sd, n, alpha=strictest),
        pairs_needed(mean / 2, sd, alpha=ALPHA),
        pairs_needed(mean / 2, sd, alpha=strictest),
    )
