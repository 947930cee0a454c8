"""Schedules of loss weights, as functions of the share of training that is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Schedule: TypeAlias = Callable[[float], float]


def check_progress(progress: float) -> float:
    """Check that ``progress`` is a share of training, in [0, 1], and return it.

    Raises:
        ValueError: If it lies outside [0, 1].
    """
    if not 0 <= progress <= 1:
        raise ValueError(
            f"progress must lie in [0, 1], the share of training that is done, got {progress}: pass step / steps"
        )
    return progress


def _check_shares(owner: str, **shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(
                f"{owner}.{name} must lie in [0, 1], a share of training, got {share}. Write epoch / epochs."
            )


@dataclass(frozen=True)
class ConstantSchedule:
    """A loss weight that stays the same during all of training.

    Attributes:
        value: The weight.

    Example:
        >>> ConstantSchedule(0.1)(0.5)
        0.1
    """

    value: float

    def __call__(self, progress: float) -> float:
        """Return the loss weight, the same for every share of training."""
        check_progress(progress)
        return self.value


@dataclass(frozen=True)
class LinearSchedule:
    """A loss weight that goes from one value to another in a straight line.

    Attributes:
        start: Weight at the beginning.
        end: Weight at the end.
        since: Share of training at which the weight begins to change.
        until: Share of training at which it reaches ``end``.

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
            raise ValueError(
                f"LinearSchedule needs since < until, got {self.since} and {self.until}. For a jump use StepSchedule."
            )

    def __call__(self, progress: float) -> float:
        """Return the loss weight at a share of training (``progress``)."""
        done = (check_progress(progress) - self.since) / (self.until - self.since)
        return self.start + (self.end - self.start) * min(max(done, 0.0), 1.0)


@dataclass(frozen=True)
class StepSchedule:
    """A loss weight with one value before a share of training, and another from there on.

    Attributes:
        at: Share of training at which the weight changes.
        before: Weight until then.
        after: Weight from then on.

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
        """Return the loss weight at a share of training (``progress``)."""
        return self.before if check_progress(progress) < self.at else self.after


@dataclass(frozen=True)
class CosineSchedule:
    """A loss weight that goes from one value to another along half a period of a cosine, slowly at both ends.

    Attributes:
        start: Weight at the beginning.
        end: Weight at the end.

    Example:
        >>> CosineSchedule(1.0, 0.0)(0.5)
        0.5
    """

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        """Return the loss weight at a share of training (``progress``)."""
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * check_progress(progress)))
