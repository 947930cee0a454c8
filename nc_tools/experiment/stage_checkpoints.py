"""The checkpoint files of a run, one for each stage of its training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nc_tools.training.checkpoint import load_checkpoint


@dataclass(frozen=True)
class StageCheckpoints:
    """One checkpoint file for each stage, in a run's folder.

    A finished stage keeps the state of its last step while another stage follows. A resumed run loads that state and
    has the stage's model and seconds without training it again.
    """

    folder: Path

    @property
    def first(self) -> Path:
        """Checkpoint of the stage that estimates label noise."""
        return self.folder / "checkpoint-first.pt"

    @property
    def main(self) -> Path:
        """Checkpoint of the training that every arm has."""
        return self.folder / "checkpoint.pt"

    @property
    def second(self) -> Path:
        """Checkpoint of the stage that trains the classifier again."""
        return self.folder / "checkpoint-second.pt"

    @property
    def exist(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.first.exists() or self.main.exists()

    def epochs_done(self) -> int:
        """Return the number of recorded epochs that the checkpoints cover; noise estimation records none."""
        recorded = [path for path in (self.main, self.second) if path.exists()]
        return sum(int(load_checkpoint(path)["epochs_done"]) for path in recorded)

    def remove(self) -> None:
        """Delete all checkpoint files."""
        for path in (self.first, self.main, self.second):
            path.unlink(missing_ok=True)
