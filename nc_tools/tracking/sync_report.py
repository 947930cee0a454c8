"""The result of uploading runs to MLflow."""

from dataclasses import dataclass

OPENING = "the MLflow store was not opened in time"
UNFINISHED = "the upload to MLflow did not end in time"


@dataclass(frozen=True)
class SyncReport:
    """The result of uploading runs to MLflow: how many were sent, how many may be missing, and why.

    Attributes:
        sent: Number of runs of which something was sent.
        pending: Number of runs of which it is not known that the store has all.
        error: The reason in one sentence, without credentials; None if nothing is missing.
    """

    sent: int
    pending: int
    error: str | None
