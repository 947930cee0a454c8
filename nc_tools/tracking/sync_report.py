"""The result of uploading runs to MLflow."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SyncReport:
    """The result of uploading runs to MLflow: how many were sent, how many may be missing, and why.

    Attributes:
        sent: Number of runs of which something was sent.
        pending: Number of runs that the store may not have completely.
        error: The reason in one sentence, without credentials; None if nothing is missing.
        pages: (title, address relative to MLflow's address) of each page of MLflow that shows the runs.
    """

    sent: int
    pending: int
    error: str | None
    pages: Sequence[tuple[str, str]] = field(default=(), compare=False)
