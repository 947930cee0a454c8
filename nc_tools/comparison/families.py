"""Test each arm (compared method) against its reference arm, adjust the p values together, and estimate the power."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nc_tools.comparison.frames import FrameDifferences, FramedRuns, frame_differences
from nc_tools.comparison.intervals import ArmCells, ArmImages, image_interval, seed_interval
from nc_tools.comparison.pairing import Cells, Lost, comparable_cells
from nc_tools.comparison.power import detectable_difference, pairs_for_width, pairs_needed
from nc_tools.comparison.result import ALPHA, ArmTest, Family, PowerEstimate
from nc_tools.comparison.statistics import PairedDifference, holm, sign_flip


@dataclass(frozen=True)
class FamilyData:
    """The data from which the tests of a comparison are computed.

    Attributes:
        cells: The runs of each arm.
        metric: The primary metric's key.
        images: arm -> (seed, draw) -> values of the metric by test image, for the runs that have them.
        lost: arm -> runs that ended without a value of the metric.
        test_per_train: As for `nc_tools.comparison.statistics.mean_difference`.
        withheld: Why no verdict is given at all, or "".
        half_width: Half-width of the interval that more seeds should reach, in the metric's unit; 0 for the absolute
            value of the observed difference.
    """

    cells: Cells
    metric: str
    images: Mapping[str, ArmImages] = field(default_factory=dict)
    lost: Mapping[str, tuple[Lost, ...]] = field(default_factory=dict)
    test_per_train: float = 0.0
    withheld: str = ""
    half_width: float = 0.0


def make_family(name: str, data: FamilyData, references: Mapping[str, str]) -> Family:
    """Test each arm against its reference arm on one metric, and adjust the p values together.

    The intervals and p values cover new test images if the values by image of all tested arms are known; otherwise all
    of them hold for these test images only.

    Args:
        name: What the family compares, in words.
        data: Runs, metric, and values by image.
        references: arm -> the arm that it is paired against.
    """
    tests = [_test(arm, reference, data) for arm, reference in references.items()]
    widened = [(test, _with_images(test, data)) for test in tests]
    covers_images = all(wide is not None for test, wide in widened if test.paired is not None and test.paired.n > 1)
    covers_images = covers_images and any(wide is not None for _, wide in widened)
    if covers_images:
        tests = [test if wide is None else replace(test, paired=wide) for test, wide in widened]
    p_values = [test.paired.p for test in tests if test.paired is not None and test.paired.p is not None]
    adjusted = iter(holm(p_values))
    complete = []
    for test in tests:
        if test.paired is None or test.paired.p is None:
            complete.append(test)
        else:
            power = _power(test.paired, len(p_values), data.half_width or abs(test.paired.mean))
            complete.append(replace(test, p_holm=next(adjusted), power=power))
    return Family(name, data.metric, tuple(complete), covers_images, data.withheld, data.test_per_train > 0)


def paired_cells(data: FamilyData, arm: str, reference: str) -> tuple[FrameDifferences, dict[str, ArmCells]]:
    """Return the differences of two arms, and the runs of both arms from which they are computed."""
    first, second = comparable_cells(data.cells.get(arm, {}), data.cells.get(reference, {}))
    values = (FramedRuns.of(side, data.metric).values(data.metric) for side in (first, second))
    differences = frame_differences(*values)
    return differences, {arm: first, reference: second}


def _test(arm: str, reference: str, data: FamilyData) -> ArmTest:
    differences, _ = paired_cells(data, arm, reference)
    paired = seed_interval(differences, test_per_train=data.test_per_train)
    flipped = sign_flip(paired.differences) if paired is not None else None
    return ArmTest(
        arm,
        reference,
        tuple(differences.table),
        paired,
        None,
        None,
        flipped,
        same_images=paired,
        frames=differences.design,
        unpaired=differences.unpaired,
        lost=data.lost.get(arm, ()),
        reference_lost=data.lost.get(reference, ()),
    )


def _with_images(test: ArmTest, data: FamilyData) -> PairedDifference | None:
    """Return the difference of a test with an interval that covers new test images, or None if it cannot."""
    if test.paired is None or data.test_per_train:
        return None
    differences, cells = paired_cells(data, test.arm, test.reference)
    arm, reference = ((cells[name], data.images.get(name, {})) for name in (test.arm, test.reference))
    return image_interval(test.paired, differences, arm, reference)


def _power(paired: PairedDifference, family_size: int, half_width: float) -> PowerEstimate:
    strictest = ALPHA / family_size
    error, df, fixed = paired.error or 0.0, paired.df or 1.0, paired.fixed
    # Standard deviation between seeds. It can be larger than that of the observed differences, since it includes the
    # interaction of seeds and test images (see `combine_conservatively`).
    sd = math.sqrt(max(error**2 - fixed, 0.0) * paired.n)
    return PowerEstimate(
        detectable_difference(error, df, alpha=ALPHA),
        detectable_difference(error, df, alpha=strictest),
        pairs_needed(paired.mean / 2, sd, fixed=fixed, alpha=ALPHA),
        pairs_needed(paired.mean / 2, sd, fixed=fixed, alpha=strictest),
        half_width,
        pairs_for_width(half_width, sd, fixed=fixed),
    )
