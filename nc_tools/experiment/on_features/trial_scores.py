"""The scores of tuning trials that have ended, kept on disk so that a stopped command does not repeat them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

from nc_tools.experiment.tuning import Score
from nc_tools.run_records.json_files import read_json_or_problem, write_json


class TrialScores:
    """The scores of ended tuning trials, in one small file for each pack that has ended.

    A trial on fixed features takes a fraction of a second, and a comparison makes hundreds: a folder for each, as for
    trials on images, would take longer than the training. A trial is found by the hash of all that decides its score
    (configuration, data, seed, frame, version), so a score is never used for another trial.

    Args:
        folder: Folder of the files. Those that cannot be read are left out, and their trials are made again.
        metric: Key of the metric on the hold-out by which tuning chooses; scores of another one are left out.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> TrialScores(folder, "holdout/gen/accuracy").keep({"1a2b3c4d5e6f7a8b": 0.5})
        >>> TrialScores(folder, "holdout/gen/accuracy")["1a2b3c4d5e6f7a8b"]
        0.5
    """

    def __init__(self, folder: Path, metric: str) -> None:
        self.folder = folder
        self.metric = metric
        self._scores: dict[str, Score] = {}
        self.read()

    def read(self) -> None:
        """Read the files again, with those that other processes have written meanwhile."""
        for path in sorted(self.folder.glob("*.json")):
            stored, _ = read_json_or_problem(path)
            scores = stored.get("scores")
            if stored.get("metric") == self.metric and isinstance(scores, dict):
                self._scores |= {trial: score for trial, score in scores.items() if _is_score(score)}

    def __contains__(self, trial: str) -> bool:
        return trial in self._scores

    def __getitem__(self, trial: str) -> Score:
        """Return the score of a trial; None if it diverged."""
        return self._scores[trial]

    def keep(self, scores: Mapping[str, Score]) -> None:
        """Add the scores of trials that have ended together, and write them to a file."""
        if not scores:
            return
        self._scores |= scores
        name = hashlib.sha256("\n".join(sorted(scores)).encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"{name}.json", {"metric": self.metric, "scores": dict(scores)})


def _is_score(value: object) -> bool:
    """Whether a value from a file can be a score; trials with another value are made again."""
    return value is None or (isinstance(value, float) and math.isfinite(value))
