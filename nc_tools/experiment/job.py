"""Messages about one training run: the job that a worker process gets, the progress it sends, the result it returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nc_tools.experiment.frame_seed import frame_seed_of
from nc_tools.experiment.run_config import Protocol, RunConfig

JobKind = Literal["tuning", "holdout", "final"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training run to make: its configuration, seed, device and output folder.

    Attributes:
        kind: "tuning" trains without the hold-out and scores it at the end; "holdout" also measures it after every
            epoch, for the temperature and the best epoch; "final" trains on the whole subset, then reads the test set.
        arm: The arm's name.
        config: The arm, with the learning rate and the tuned parameter's value that this run uses.
        seed: Seed of subset, hold-out, initial weights, order and augmentation.
        draw: Number of the head's frame within the seed.
        root: The output folder.
        experiment: Name of the comparison.
        suite: Hash of the comparison.
        protocol: The rules that all arms share.
        device: Where the run is made, such as "cpu" or "cuda:0".
        resume: Continue from a checkpoint where an unfinished run left one.
        holdout_run: For "final": folder of the hold-out run that gives temperature and best epoch.
        cache: Folder of decoded images; None for ``cache`` in the output folder.
    """

    kind: JobKind
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
    cache: Path | None = None

    @property
    def frame_seed(self) -> int | None:
        """Seed of the head's frame; None for a head without one."""
        return frame_seed_of(self.config, seed=self.seed, draw=self.draw, fixed=self.protocol.frame_seed)

    @property
    def label(self) -> str:
        """Name of the run in progress lines, such as "etf s0 d1" for seed 0 and draw 1."""
        return f"{self.arm} s{self.seed} d{self.draw}"


@dataclass(frozen=True)
class JobResult:
    """How a training run ended: its status, score and error.

    Attributes:
        run: Its folder; None if it never began.
        status: FINISHED, FAILED or KILLED.
        score: Balanced accuracy of the trained model on the hold-out, for kinds that have one.
        error: One line that says why it did not finish.
        earlier: Whether the result is that of an earlier run (finished, or a diverged trial), which was not repeated.
        diverged: Whether the loss became infinite or NaN, which says something about the arm; other failures do not.
        disk_full: Whether a file could not be written because the disk is full.
    """

    run: Path | None
    status: str
    score: float | None = None
    error: str | None = None
    earlier: bool = False
    diverged: bool = False
    disk_full: bool = False

    @property
    def unexpected(self) -> bool:
        """Whether the run ended because of an error or a lost worker, not by divergence or a user's interrupt."""
        return (self.status == "FAILED" and not self.diverged) or (self.status == "KILLED" and self.run is None)


@dataclass(frozen=True)
class RunProgress:
    """Progress of a run, or of a group of them.

    Attributes:
        label: What is done.
        done: How many are done.
        total: How many there are in all.
        unit: What is counted, in the singular.
    """

    label: str
    done: int
    total: int
    unit: str = "epoch"


@dataclass(frozen=True)
class Note:
    """Something about a run or a pack in progress that people should read."""

    text: str
