"""How a sync went."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class SyncReport:
    """How a sync went.

    Attributes:
        sent: Runs of which something was sent.
        pending: Runs of which something is still missing in the store.
        error: One sentence on why, without credentials; None if all is there.
    """

    sent: int
    pending: int
    error: str | None

    def advice(self, root: object) -> str | None:
        """What to tell a person once, at the end; None if all is there."""
        if self.error is None:
            return None
        what = (
            f"{self.pending} run{'s are' if self.pending != 1 else ' is'} not in MLflow yet: " if self.pending else ""
        )
        way_out = f"The records on disk are complete; send them later with: nc-tools sync {shlex.quote(str(root))}"
        return f"{what}{self.error}. {way_out}"
