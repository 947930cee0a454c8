"""The result of a comparison as plain dataclasses, from which every report is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nc_tools.comparison.arm_models import ArmReliability, Disagreement, Mistake
from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.frames import FrameDesign
from nc_tools.comparison.margins import MarginTest
from nc_tools.comparison.metric_info import MetricInfo, metric_info
from nc_tools.comparison.pairing import Cells, Lost
from nc_tools.comparison.read_experiment import Experiment
from nc_tools.comparison.statistics import PairedDifference
from nc_tools.comparison.variance import VarianceShares

ALPHA = 0.05

Verdict = Literal["better", "worse", "open"]


@dataclass(frozen=True)
class ArmMetric:
    """The values of one arm in one metric, with its difference from the baseline.

    Attributes:
        arm: The arm.
        metric: The metric's key.
        seeds: Seeds that have a value.
        draws: Largest number of runs of one seed, which differ in their frame.
        mean: Mean over seeds; None if no run has the metric.
        sd: Standard deviation of single runs, None for one run.
        paired: Difference to the baseline; None for the baseline itself and if no seed is common.
        p_holm: Holm-adjusted p, on the primary metric only.
    """

    arm: str
    metric: str
    seeds: tuple[int, ...]
    draws: int
    mean: float | None
    sd: float | None
    paired: PairedDifference | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class PowerEstimate:
    """What a test can detect with power .8, given the observed spread, and how many pairs more precision takes.

    Attributes:
        detectable: Smallest difference that can be detected at alpha.
        detectable_adjusted: The same at alpha / m, the strictest step of Holm's method.
        pairs_for_half: Pairs that would detect half of the observed difference at alpha; None if no number of pairs
            does, as when most of the variance is that of the test images.
        pairs_for_half_adjusted: The same at alpha / m.
        half_width: Half-width that an interval should have, in the metric's unit.
        pairs_for_half_width: Pairs that would give the interval this half-width; None if no number of pairs does.
    """

    detectable: float | None
    detectable_adjusted: float | None
    pairs_for_half: int | None
    pairs_for_half_adjusted: int | None
    half_width: float = 0.0
    pairs_for_half_width: int | None = None


@dataclass(frozen=True)
class ArmTest:
    """The paired test of one arm against its reference arm on the primary metric.

    Attributes:
        arm: The arm.
        reference: The arm that it is paired against.
        seeds: The seeds that are paired.
        paired: Difference, interval and p; they decide the verdict. None if no seed is common.
        p_holm: p adjusted over the family; None if there is no test.
        power: What could be detected; None for fewer than two pairs or no spread.
        sign_flip: p of the sign-flip test; None unless there are 6 to 20 pairs.
        same_images: The difference with its interval over seeds and frames, for these test images; the same as
            ``paired`` unless that covers new test images.
        frames: How the frames of the differences are spread over seeds.
        unpaired: Common seeds that are left out, since the two arms have different frames there.
        lost: Runs of the arm that ended without a value.
        reference_lost: The same of the reference.
    """

    arm: str
    reference: str
    seeds: tuple[int, ...]
    paired: PairedDifference | None
    p_holm: float | None
    power: PowerEstimate | None
    sign_flip: float | None
    same_images: PairedDifference | None = None
    frames: FrameDesign = "none"
    unpaired: tuple[int, ...] = ()
    lost: tuple[Lost, ...] = ()
    reference_lost: tuple[Lost, ...] = ()


@dataclass(frozen=True)
class Family:
    """A family of tests: those whose p values are adjusted together.

    Attributes:
        name: What it compares, in words.
        metric: The metric's key.
        tests: One per arm.
        covers_images: Whether intervals and p values cover new test images.
        withheld: Why no verdict is given, or "".
        resplit: Whether each seed has its own test images.
    """

    name: str
    metric: str
    tests: tuple[ArmTest, ...]
    covers_images: bool = False
    withheld: str = ""
    resplit: bool = False

    @property
    def size(self) -> int:
        """The number of tests in the family, m in Holm's method."""
        return sum(test.p_holm is not None for test in self.tests)

    def verdict(self, test: ArmTest) -> Verdict:
        """Return ``"better"`` or ``"worse"`` if a test of the family is significant, otherwise ``"open"``.

        An arm that lost runs is never better, and no arm is worse than a reference that lost runs: their means are over
        the remaining runs only.
        """
        change = self.unrestricted_verdict(test)
        survivors = test.lost if change == "better" else test.reference_lost if change == "worse" else ()
        return "open" if self.withheld or survivors else change

    def unrestricted_verdict(self, test: ArmTest) -> Verdict:
        """Return the verdict by the p value alone, even if runs were lost or the family gives no verdict."""
        if test.p_holm is None or test.p_holm >= ALPHA or test.paired is None:
            return "open"
        change = metric_info(self.metric).improvement(test.paired.mean)
        return "open" if change == "neither" else change


@dataclass(frozen=True)
class ArmState:
    """How complete an arm is: seeds with a value of the primary metric, and the reason for each run without one.

    Attributes:
        arm: The arm.
        seeds: Seeds that have a value.
        missing: Planned seeds that have none.
        draws: Draw numbers of the arm's runs, over all seeds.
        unfinished: The reason for each run that has no value.
    """

    arm: str
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    draws: tuple[int, ...]
    unfinished: tuple[str, ...]

    @property
    def label(self) -> str:
        """The number of seeds with a value as text, such as "5", or "5×3" with three frames at each seed."""
        return f"{len(self.seeds)}×{len(self.draws)}" if self.seeds and len(self.draws) > 1 else str(len(self.seeds))


@dataclass(frozen=True)
class Caution:
    """A reason why the comparison may be unfair or incomplete.

    Attributes:
        kind: What it is about. ``"confounded"``, ``"not paired"`` and ``"frames"`` of one arm are repeated in the
            headline.
        arm: The arm it concerns, or "" for all.
        text: One sentence.
    """

    kind: Literal[
        "folders",
        "few pairs",
        "confounded",
        "not paired",
        "frequency groups",
        "frames",
        "lost runs",
        "mixed configurations",
        "versions",
        "tuning",
        "uneven draws",
        "outliers",
        "record",
    ]
    arm: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        experiment: The plan: arms, primary metric, protocol.
        baseline: The arm that the others are paired against.
        metrics: All metric keys that any run has, primary first.
        states: One entry per arm, in order, also for arms without a result.
        rows: One entry per arm and metric, in order.
        family: The tests of all arms against the baseline on the primary metric.
        controls: The tests of arms against the reference with the same loss; None if the plan names no reference.
        shares: Variance of the difference to the baseline between seeds, frames and the rest, for arms with several
            frames at a seed.
        margins: Tests with the margin that the protocol fixes; empty without one.
        disagreements: McNemar's tests, one per arm and seed.
        calibration: Reliability by arm, for arms with recorded predictions.
        confusion: How often each class is predicted for each true class, (K, K), summed over seeds; for the baseline
            and the arm with the best mean.
        mistakes: The images that these two arms misclassify with the most confidence, by arm.
        cautions: Reasons why the comparison may be unfair or incomplete.
        notes: Remarks on how it was made.
        cells: The runs that are compared, arm -> (seed, draw) -> run.
        runs: Every run of the comparison, also tuning trials and hold-out runs, which are only listed.
    """

    experiment: Experiment
    baseline: str
    metrics: tuple[str, ...]
    states: tuple[ArmState, ...]
    rows: tuple[ArmMetric, ...]
    family: Family
    controls: Family | None
    shares: Mapping[str, VarianceShares]
    margins: tuple[MarginTest, ...]
    disagreements: tuple[Disagreement, ...]
    calibration: Mapping[str, ArmReliability]
    confusion: Mapping[str, NDArray[np.int64]]
    mistakes: Mapping[str, tuple[Mistake, ...]]
    cautions: tuple[Caution, ...]
    notes: tuple[str, ...]
    cells: Cells
    runs: tuple[ComparedRun, ...]

    @property
    def primary(self) -> MetricInfo:
        """Name, direction and format of the primary metric, which the significance tests are about."""
        return metric_info(self.experiment.primary)

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of all arms, in the order of the tables."""
        return tuple(state.arm for state in self.states)

    def row(self, arm: str, metric: str) -> ArmMetric | None:
        """Return the values of one arm in one metric; None if there are none."""
        return self._rows_by_place.get((arm, metric))

    @cached_property
    def _rows_by_place(self) -> Mapping[tuple[str, str], ArmMetric]:
        return {(row.arm, row.metric): row for row in self.rows}

    @property
    def ranked(self) -> list[str]:
        """The arms with a result, without the baseline, the best mean of the primary metric first."""
        sign = 1.0 if self.primary.direction == "lower" else -1.0
        means = {row.arm: row.mean for row in self.rows if row.metric == self.primary.key and row.mean is not None}
        return sorted((arm for arm in means if arm != self.baseline), key=lambda arm: sign * means[arm])

    def state(self, arm: str) -> ArmState:
        """Return how complete an arm's runs are."""
        return next(state for state in self.states if state.arm == arm)

    def test(self, arm: str) -> ArmTest | None:
        """Return an arm's test against the baseline; None for the baseline itself."""
        return next((test for test in self.family.tests if test.arm == arm), None)
