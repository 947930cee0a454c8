"""The result of uploading runs to MLflow."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SyncReport:
    """The result of uploading runs to MLflow: how many were sent, how many may be missing, and why.

    Attributes:
        sent: Number of runs of which something was sent.
        pending: Number of runs of which it is not known that the store has all.
        error: The reason in one sentence, without credentials; None if nothing is missing.
        pages: What each page of MLflow shows that shows the runs, and its address relative to MLflow's.
    """

    sent: int
    pending: int
    error: str | None
    pages: Sequence[tuple[str, str]] = field(default=(), compare=False)
