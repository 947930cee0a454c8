"""Results of an arm's single trained models: McNemar's tests, reliability diagrams, and their surest mistakes."""

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
        images: Number of test images.
        only_reference: Number of images that only the baseline's model gets right.
        only_arm: Number of images that only the arm's model gets right.
        p: Exact two-sided p value, unadjusted.
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
        name: Its path, or a text with its index, such as "test image 7".
        true: Name of its class.
        predicted: Name of the class that it is taken for.
        confidence: The probability of the predicted class, before any scaling.
        seed: The seed of the model with this confidence, which is the highest of all seeds.
        wrong: How many of the arm's seeds take it for a wrong class.
        seeds: How many of the arm's seeds were tested on it.
        others: other arm -> (how many of its seeds classify the image correctly, how many were tested on it).
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
