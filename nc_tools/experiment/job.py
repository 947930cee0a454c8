"""One run of one arm: what a worker is asked to do, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nc_tools.experiment.run_config import Protocol, RunConfig

Kind = Literal["tuning", "holdout", "final"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to make.

    Attributes:
        kind: "tuning" trains without the hold-out and scores it at the end; "holdout" measures it after every epoch,
            for the temperature and the best epoch; "final" trains on the whole subset and then reads the test set.
        arm: The arm's name.
        config: The arm, with the rate and the knob that this run uses.
        seed: Subset, hold-out, initial weights, order, augmentation.
        draw: Of the head's frame.
        root: The output folder.
        experiment: Name of the comparison.
        suite: Its hash.
        protocol: The rules that all arms share.
        device: Such as "cpu" or "cuda:0".
        resume: Go on from a checkpoint where an unfinished run left one.
        holdout_run: For "final": the folder of the hold-out run that gives temperature and best epoch.
    """

    kind: Kind
    arm: str
    config: RunConfig
    seed: int
    draw: int
    root: Path
    experiment: str
    suite: str
    protocol: Protocol
    device: str
    resume: bool = False
    holdout_run: Path | None = None

    @property
    def label(self) -> str:
        """How progress calls it."""
        return f"{self.arm} s{self.seed} d{self.draw}"


@dataclass(frozen=True)
class JobResult:
    """How a run ended.

    Attributes:
        run: Its folder; None if it never began.
        status: FINISHED, FAILED or KILLED.
        score: Balanced accuracy on the hold-out at the last epoch, for kinds that have one.
        error: One line on why it failed.
        again: Whether the run was there already, finished or (a trial) diverged, and was not repeated.
        diverged: Whether the loss stopped being a number: an outcome of the arm, unlike every other failure.
        no_room: Whether a file of it could not be written for want of room: so it would be for all that come after.
    """

    run: Path | None
    status: str
    score: float | None = None
    error: str | None = None
    again: bool = False
    diverged: bool = False
    no_room: bool = False

    @property
    def unexpected(self) -> bool:
        """Whether it ended in a way that says nothing of the arm and that nobody asked for."""
        return (self.status == "FAILED" and not self.diverged) or (self.status == "KILLED" and self.run is None)


@dataclass(frozen=True)
class Progress:
    """A sign of life from a run: ``done`` of ``total`` epochs."""

    label: str
    done: int
    total: int
