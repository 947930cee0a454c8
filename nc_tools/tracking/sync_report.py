"""The result of a sync."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class SyncReport:
    """The result of a sync.

    Attributes:
        sent: Number of runs of which something was sent.
        pending: Number of runs of which something is still missing in the store.
        error: The reason in one sentence, without credentials; None if nothing is missing.
    """

    sent: int
    pending: int
    error: str | None

    def advice(self, root: object) -> str | None:
        """Return what is missing, why, and the command that sends it; None if nothing is missing."""
        if self.error is None:
            return None
        missing = (
            f"{self.pending} run{'s are' if self.pending != 1 else ' is'} not in MLflow yet: " if self.pending else ""
        )
        advice = f"The records on disk are complete; send them later with: nc-tools sync {shlex.quote(str(root))}"
        return f"{missing}{self.error}. {advice}"
