"""What is known of an arm's single trained models: where two of them differ, and how well their confidence fits."""

from __future__ import annotations

from dataclasses import dataclass

from nc_tools.comparison.image_predictions import Reliability


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
