"""The checkpoint files of a training run, one for each of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nc_tools._support.short_repr import short_repr
from nc_tools.training.checkpoint import damaged_checkpoint, load_checkpoint


@dataclass(frozen=True)
class StageCheckpoints:
    """The checkpoint files in a run's folder, one for each stage of its training.

    A finished stage keeps the state of its last step while another stage follows. A resumed run loads that state and
    has the stage's model and seconds without training it again.
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
    def exist(self) -> bool:
        """Whether there is a checkpoint from which training can resume."""
        return self.first.exists() or self.main.exists()

    def epochs_done(self) -> int:
        """Return how many recorded epochs the checkpoints cover; epochs of noise estimation do not count.

        Raises:
            DamagedFileError: If a checkpoint is damaged.
        """
        return sum(_epochs_done(path) for path in (self.main, self.second) if path.exists())

    def remove(self) -> None:
        """Delete all checkpoint files."""
        for path in (self.first, self.main, self.second):
            path.unlink(missing_ok=True)


def _epochs_done(path: Path) -> int:
    done = load_checkpoint(path).get("epochs_done")
    if not isinstance(done, int) or done < 0:
        raise damaged_checkpoint(path, ValueError(f"its number of epochs is {short_repr(done)}"))
    return done
