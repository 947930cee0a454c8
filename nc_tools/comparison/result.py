"""What a comparison found, as plain records: every output is written from these and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nc_tools.comparison.image_predictions import Disagreement, Reliability
from nc_tools.comparison.metric_info import MetricInfo, metric_info
from nc_tools.comparison.pairing import Cells
from nc_tools.comparison.read_experiment import ComparedRun, Experiment
from nc_tools.comparison.statistics import PairedDifference
from nc_tools.comparison.variance import VarianceShares

ALPHA = 0.05

Verdict = Literal["better", "worse", "open"]


@dataclass(frozen=True)
class Row:
    """One arm on one metric.

    Attributes:
        arm: The arm.
        metric: The metric's key.
        seeds: Seeds that have a value.
        draws: Draws of the arm's frame that enter each seed's mean.
        mean: Mean over seeds; None where no run has the metric.
        sd: Standard deviation over seeds, None for one seed.
        paired: Difference to the baseline; None for the baseline itself and where no seed is common.
        p_holm: Holm-corrected p, on the primary metric only.
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
class Reach:
    """What the pairs could have seen, given the observed spread of the differences, with power .8.

    Attributes:
        plain: Smallest detectable difference at the plain level.
        corrected: The same at Holm's strictest step, alpha / m.
        pairs_for_half: Pairs that would find half of the observed difference at the plain level.
        pairs_for_half_corrected: The same at alpha / m.
    """

    plain: float | None
    corrected: float | None
    pairs_for_half: int | None
    pairs_for_half_corrected: int | None


@dataclass(frozen=True)
class Test:
    """One member of a family: an arm against its reference on the primary metric.

    Attributes:
        arm: The arm.
        reference: What it is paired against.
        seeds: The common seeds.
        paired: What the pairs say; None where no seed is common.
        p_holm: Corrected over the family; None where there is no test.
        reach: What could have been detected; None for fewer than two pairs or no spread.
        sign_flip: Permutation p, from six pairs on.
    """

    __test__ = False  # pytest collects classes of this name

    arm: str
    reference: str
    seeds: tuple[int, ...]
    paired: PairedDifference | None
    p_holm: float | None
    reach: Reach | None
    sign_flip: float | None


@dataclass(frozen=True)
class Family:
    """Tests that are corrected together, with the name under which they were announced."""

    name: str
    metric: str
    tests: tuple[Test, ...]

    @property
    def size(self) -> int:
        """How many tests were made, the m of the correction."""
        return sum(test.p_holm is not None for test in self.tests)

    def verdict(self, test: Test) -> Verdict:
        """Say whether a test found its arm better or worse; everything else stays open."""
        if test.p_holm is None or test.p_holm >= ALPHA or test.paired is None:
            return "open"
        found = metric_info(self.metric).improvement(test.paired.mean)
        return "open" if found == "neither" else found


@dataclass(frozen=True)
class ArmState:
    """How far an arm got: its finished seeds and draws, and every run that has no result, with the reason."""

    arm: str
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    draws: tuple[int, ...]
    unfinished: tuple[str, ...]

    @property
    def label(self) -> str:
        """Seeds x draws, as the tables show it."""
        return f"{len(self.seeds)}×{max(len(self.draws), 1)}" if self.seeds else "0"


@dataclass(frozen=True)
class Caution:
    """What may make the comparison unfair or incomplete.

    Attributes:
        kind: ``"confounded"`` and ``"not paired"`` touch an arm's whole result; the others ask for a look.
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
class Calibration:
    """Reliability of an arm, its runs of the first draw added over seeds."""

    before: Reliability
    after: Reliability | None
    runs: int


@dataclass(frozen=True)
class Comparison:
    """A whole comparison.

    Attributes:
        experiment: What was meant to be compared, and its protocol.
        baseline: The arm that the others are paired against.
        metrics: All metric keys that any run has, primary first.
        states: One entry per arm, in order; an arm without a result is here like all others.
        rows: One entry per arm and metric, in order.
        family: All arms against the baseline on the primary metric.
        controls: Arms against the reference that shares their loss; None where none is named.
        shares: Variance of seeds, draws and the rest, for arms with several draws.
        disagreements: McNemar's tests, one per arm and seed.
        calibration: Reliability by arm, where predictions were kept.
        cautions: What may make the comparison unfair or incomplete.
        notes: What a reader should know about how it was made.
        cells: The runs that stand for each arm, arm -> (seed, draw) -> run.
        runs: Every run that was found.
    """

    experiment: Experiment
    baseline: str
    metrics: tuple[str, ...]
    states: tuple[ArmState, ...]
    rows: tuple[Row, ...]
    family: Family
    controls: Family | None
    shares: Mapping[str, VarianceShares]
    disagreements: tuple[Disagreement, ...]
    calibration: Mapping[str, Calibration]
    cautions: tuple[Caution, ...]
    notes: tuple[str, ...]
    cells: Cells
    runs: tuple[ComparedRun, ...]

    @property
    def primary(self) -> MetricInfo:
        """The metric that decides."""
        return metric_info(self.experiment.primary)

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, in order."""
        return tuple(state.arm for state in self.states)

    def row(self, arm: str, metric: str) -> Row | None:
        """Look up one arm on one metric."""
        return next((row for row in self.rows if row.arm == arm and row.metric == metric), None)

    def state(self, arm: str) -> ArmState:
        """Look up how far an arm got."""
        return next(state for state in self.states if state.arm == arm)

    def test(self, arm: str) -> Test | None:
        """Look up an arm's test against the baseline."""
        return next((test for test in self.family.tests if test.arm == arm), None)
