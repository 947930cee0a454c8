"""The result of a comparison as plain dataclasses, from which every report is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.image_predictions import Reliability
from nc_tools.comparison.metric_info import MetricInfo, metric_info
from nc_tools.comparison.pairing import Cells
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
        draws: Draws of the arm's frame in each seed's mean.
        mean: Mean over seeds; None if no run has the metric.
        sd: Standard deviation over seeds, None for one seed.
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
    """The smallest difference that a paired t test can detect with power .8, given the observed spread.

    Attributes:
        detectable: Smallest difference that can be detected at alpha.
        detectable_adjusted: The same at alpha / m, the strictest step of Holm's method.
        pairs_for_half: Pairs that would detect half of the observed difference at alpha.
        pairs_for_half_adjusted: The same at alpha / m.
    """

    detectable: float | None
    detectable_adjusted: float | None
    pairs_for_half: int | None
    pairs_for_half_adjusted: int | None


@dataclass(frozen=True)
class ArmTest:
    """The paired test of one arm against its reference arm on the primary metric.

    Attributes:
        arm: The arm.
        reference: The arm that it is paired against.
        seeds: The common seeds.
        paired: Difference, interval and p over the pairs; None if no seed is common.
        p_holm: p adjusted over the family; None if there is no test.
        power: What could be detected; None for fewer than two pairs or no spread.
        sign_flip: p of the sign-flip test; None for fewer than six pairs.
    """

    arm: str
    reference: str
    seeds: tuple[int, ...]
    paired: PairedDifference | None
    p_holm: float | None
    power: PowerEstimate | None
    sign_flip: float | None


@dataclass(frozen=True)
class Family:
    """A family of tests: those whose p values are adjusted together."""

    name: str
    metric: str
    tests: tuple[ArmTest, ...]

    @property
    def size(self) -> int:
        """The number of tests in the family, m in Holm's method."""
        return sum(test.p_holm is not None for test in self.tests)

    def verdict(self, test: ArmTest) -> Verdict:
        """Return ``"better"`` or ``"worse"`` if a test of the family is significant, otherwise ``"open"``."""
        if test.p_holm is None or test.p_holm >= ALPHA or test.paired is None:
            return "open"
        change = metric_info(self.metric).improvement(test.paired.mean)
        return "open" if change == "neither" else change


@dataclass(frozen=True)
class ArmState:
    """How complete an arm is: finished seeds and draws, missing seeds, and the reason for each run without a result."""

    arm: str
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    draws: tuple[int, ...]
    unfinished: tuple[str, ...]

    @property
    def label(self) -> str:
        """The numbers of finished seeds and draws as text, such as "5×3"."""
        return f"{len(self.seeds)}×{max(len(self.draws), 1)}" if self.seeds else "0"


@dataclass(frozen=True)
class Caution:
    """A reason why the comparison may be unfair or incomplete.

    Attributes:
        kind: ``"confounded"`` and ``"not paired"`` concern an arm's whole result.
        arm: The arm it concerns, or "" for all.
        text: One sentence.
    """

    kind: Literal[
        "few pairs", "confounded", "not paired", "mixed configurations", "tuning", "uneven draws", "outliers", "record"
    ]
    arm: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Disagreement:
    """McNemar's test of an arm's and the baseline's trained model at one seed.

    Attributes:
        arm: The arm.
        seed: The seed at which both were trained.
        images: Test images.
        only_reference: Images that only the reference gets right.
        only_arm: Images that only the arm gets right.
        p: Exact two-sided p, unadjusted.
    """

    arm: str
    seed: int
    images: int
    only_reference: int
    only_arm: int
    p: float


@dataclass(frozen=True)
class ArmReliability:
    """The reliability diagram of an arm, summed over its seeds (first draw only).

    Attributes:
        before: As trained.
        after: After temperature scaling; None unless every run has a temperature.
        runs: Number of runs.
    """

    before: Reliability
    after: Reliability | None
    runs: int


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
        shares: Variance of seeds, draws and the rest, for arms with several draws.
        disagreements: McNemar's tests, one per arm and seed.
        calibration: Reliability by arm, for arms with recorded predictions.
        cautions: Reasons why the comparison may be unfair or incomplete.
        notes: Remarks on how it was made.
        cells: The runs that are compared, arm -> (seed, draw) -> run.
        runs: Every run of the comparison.
    """

    experiment: Experiment
    baseline: str
    metrics: tuple[str, ...]
    states: tuple[ArmState, ...]
    rows: tuple[ArmMetric, ...]
    family: Family
    controls: Family | None
    shares: Mapping[str, VarianceShares]
    disagreements: tuple[Disagreement, ...]
    calibration: Mapping[str, ArmReliability]
    cautions: tuple[Caution, ...]
    notes: tuple[str, ...]
    cells: Cells
    runs: tuple[ComparedRun, ...]

    @property
    def primary(self) -> MetricInfo:
        """Key of the primary metric, which the significance tests are about."""
        return metric_info(self.experiment.primary)

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of all arms, in the order of the tables."""
        return tuple(state.arm for state in self.states)

    def row(self, arm: str, metric: str) -> ArmMetric | None:
        """Return the values of one arm in one metric."""
        return next((row for row in self.rows if row.arm == arm and row.metric == metric), None)

    def state(self, arm: str) -> ArmState:
        """Return how complete an arm's runs are."""
        return next(state for state in self.states if state.arm == arm)

    def test(self, arm: str) -> ArmTest | None:
        """Return an arm's test against the baseline."""
        return next((test for test in self.family.tests if test.arm == arm), None)
