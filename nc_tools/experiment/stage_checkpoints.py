"""Where the stages of a run keep the state that they resume from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nc_tools.training.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Checkpoints:
    """One file for each stage in a run's folder.

    A stage that has ended leaves the state of its last step, while a stage follows: a resumed run goes through it at
    once and has its model and its seconds back.
    """

    folder: Path

    @property
    def first(self) -> Path:
        """Of the stage that estimates label noise."""
        return self.folder / "checkpoint-first.pt"

    @property
    def main(self) -> Path:
        """Of the training that every arm has."""
        return self.folder / "checkpoint.pt"

    @property
    def second(self) -> Path:
        """Of the stage that trains the classifier once more."""
        return self.folder / "checkpoint-second.pt"

    @property
    def exist(self) -> bool:
        """Whether there is something to resume from."""
        return self.first.exists() or self.main.exists()

    def epochs_done(self) -> int:
        """Return how many epochs the record of a resumed run may keep; the first stage records none."""
        recorded = [path for path in (self.main, self.second) if path.exists()]
        return sum(int(load_checkpoint(path)["epochs_done"]) for path in recorded)

    def remove(self) -> None:
        """Delete them all."""
        for path in (self.first, self.main, self.second):
            path.unlink(missing_ok=True)
