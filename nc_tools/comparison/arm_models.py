"""What is known of an arm's single trained models: differences, calibration, and their surest mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Mistake:
    """A test image that an arm takes for a wrong class with much confidence.

    Attributes:
        name: Its path, or its place in the test set in words.
        true: Name of its class.
        predicted: Name of the class that it is taken for.
        confidence: The probability of that class, as trained.
        seed: The seed at which it is highest.
        wrong: How many of the arm's seeds take it for a wrong class.
        seeds: How many of them were tested on it.
        others: By other arm, how many of its seeds are right, and how many were tested on it.
        picture: (C, H, W), uint8; None if the run kept none.
    """

    name: str
    true: str
    predicted: str
    confidence: float
    seed: int
    wrong: int
    seeds: int
    others: Mapping[str, tuple[int, int]]
    picture: NDArray[np.uint8] | None
