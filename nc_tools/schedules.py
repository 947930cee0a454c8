"""Weights as functions of training's progress, written down so that a record can hold them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Schedule: TypeAlias = Callable[[float], float]


def check_progress(progress: float) -> float:
    """Return the progress if it lies within the training.

    Raises:
        ValueError: If it does not.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is the share of training that is done, from 0 to 1, got {progress}: step / steps")
    return progress


def _check_shares(owner: str, **shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(
                f"{owner}.{name} is a share of training from 0 to 1, got {share}: epoch e of E is reached at e / E"
            )


@dataclass(frozen=True)
class ConstantSchedule:
    """The same weight throughout.

    Example:
        >>> ConstantSchedule(0.1)(0.5)
        0.1
    """

    value: float

    def __call__(self, progress: float) -> float:
        """Return the weight."""
        check_progress(progress)
        return self.value


@dataclass(frozen=True)
class LinearSchedule:
    """From one weight to another in a straight line.

    Attributes:
        start: Weight at the beginning.
        end: Weight at the end.
        since: Share of training at which it begins to change.
        until: Share at which it has reached ``end``.

    Raises:
        ValueError: If the shares do not rise within [0, 1].

    Example:
        >>> LinearSchedule(0.0, 0.1, until=0.5)(0.25)
        0.05
    """

    start: float
    end: float
    since: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        _check_shares("LinearSchedule", since=self.since, until=self.until)
        if not self.since < self.until:
            raise ValueError(f"LinearRamp needs since < until, got {self.since} and {self.until}: Step is the jump")

    def __call__(self, progress: float) -> float:
        """Return the weight at this share of training."""
        done = (check_progress(progress) - self.since) / (self.until - self.since)
        return self.start + (self.end - self.start) * min(max(done, 0.0), 1.0)


@dataclass(frozen=True)
class StepSchedule:
    """One weight before a share of training, another from there on: a deferred term.

    Raises:
        ValueError: If ``at`` lies outside [0, 1].

    Example:
        >>> StepSchedule(at=0.8, before=0.0, after=1.0)(0.8)
        1.0
    """

    at: float
    before: float
    after: float

    def __post_init__(self) -> None:
        _check_shares("StepSchedule", at=self.at)

    def __call__(self, progress: float) -> float:
        """Return the weight at this share of training."""
        return self.before if check_progress(progress) < self.at else self.after


@dataclass(frozen=True)
class CosineSchedule:
    """From one weight to another along half a cosine: slow at both ends.

    Example:
        >>> CosineSchedule(1.0, 0.0)(0.5)
        0.5
    """

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        """Return the weight at this share of training."""
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * check_progress(progress)))
