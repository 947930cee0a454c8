"""The files that a run needs only until it is finished: checkpoints of its stages, weights of its best epoch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nc_tools._support.short_repr import short_repr
from nc_tools.training.checkpoint import damaged_checkpoint, load_checkpoint


@dataclass(frozen=True)
class StageCheckpoints:
    """The files in a run's folder that it needs only until it is finished.

    There is one checkpoint for each stage of its training. A finished stage keeps the state of its last step while
    something follows that takes time: another stage, or the measures of a final run. A resumed run loads that state and
    has the stage's model and seconds without training it again. No file is removed before the run is FINISHED, because
    a run that is killed earlier needs them again.
    """

    folder: Path

    @property
    def first(self) -> Path:
        """Path of the checkpoint of the stage that estimates label noise."""
        return self.folder / "checkpoint-first.pt"

    @property
    def main(self) -> Path:
        """Path of the checkpoint of the main training."""
        return self.folder / "checkpoint.pt"

    @property
    def second(self) -> Path:
        """Path of the checkpoint of the second stage, which retrains the classifier."""
        return self.folder / "checkpoint-second.pt"

    @property
    def best(self) -> Path:
        """Path of the weights of the epoch that the hold-out run found best; final runs have it from that epoch on."""
        return self.folder / "best.safetensors"

    def can_resume(self, best_epoch: int | None) -> bool:
        """Return whether training can resume from a checkpoint.

        Args:
            best_epoch: The epoch of which the run must have the weights; None if it needs none.
        """
        if not (self.first.exists() or self.main.exists()):
            return False
        return best_epoch is None or self.epochs_done() < best_epoch or self.best.exists()

    def epochs_done(self) -> int:
        """Return how many recorded epochs the checkpoints cover; epochs of noise estimation do not count.

        Raises:
            DamagedFileError: If a checkpoint is damaged.
        """
        return sum(_epochs_done(path) for path in (self.main, self.second) if path.exists())

    def remove(self) -> None:
        """Delete all these files; called when the run is FINISHED."""
        for path in (self.first, self.main, self.second, self.best):
            path.unlink(missing_ok=True)


def _epochs_done(path: Path) -> int:
    done = load_checkpoint(path).get("epochs_done")
    if not isinstance(done, int) or done < 0:
        raise damaged_checkpoint(path, ValueError(f"its number of epochs is {short_repr(done)}"))
    return done
