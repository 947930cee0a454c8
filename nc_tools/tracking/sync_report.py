"""The result of uploading runs to MLflow."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class SyncReport:
    """The result of uploading runs to MLflow: how many were sent, how many are missing, and why.

    Attributes:
        sent: Number of runs of which something was sent.
        pending: Number of runs of which something is still missing in the store.
        error: The reason in one sentence, without credentials; None if nothing is missing.
    """

    sent: int
    pending: int
    error: str | None

    def advice(self, root: object) -> str | None:
        """Return a message with what MLflow lacks, why, and the command that uploads it; None if nothing is missing."""
        if self.error is None:
            return None
        missing = (
            f"{self.pending} run{'s are' if self.pending != 1 else ' is'} not in MLflow yet: " if self.pending else ""
        )
        advice = f"All runs are saved on disk; upload them later with: nc-tools sync {shlex.quote(str(root))}"
        return f"{missing}{self.error}. {advice}"
