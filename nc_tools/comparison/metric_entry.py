"""One entry of the table of metrics: a pattern of keys, and everything that a report says about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["higher", "lower", "neither"]
Unit = Literal["", "points"]

SPLITS = {"test": "test", "train": "train", "holdout": "hold-out", "best": "best epoch"}
OOD_SETS = {
    "mean": "mean over the sets",
    "near": "near outliers",
    "held_out": "held-out classes",
    "far": "far outliers",
}
OOD_SCORES = {
    "msp": "MSP",
    "max_logit": "MaxLogit",
    "energy": "Energy",
    "gen": "GEN",
    "knn": "KNN",
    "mahalanobis": "Mahal.",
    "rmds": "RMDS",
    "vim": "ViM",
    "neco": "NECO",
    "nci": "NCI",
    "fdbd": "fDBD",
    "grood": "GROOD",
}
TRANSFER_METHODS = {
    "probe": "linear probe",
    "ridge": "ridge probe",
    "knn": "kNN",
    "ncc_1": "1-shot nearest class mean",
    "ncc_5": "5-shot nearest class mean",
    "imprint_1": "1-shot imprint",
    "imprint_5": "5-shot imprint",
    "finetune": "fine-tuning",
    "lpft": "probe, then fine-tuning",
    "scl": "one layer and a skip connection",
}
CLASS_GROUPS = {
    "many": "many-shot classes",
    "medium": "medium-shot classes",
    "few": "few-shot classes",
    "head": "head third",
    "middle": "middle third",
    "tail": "tail third",
}

CONFORMAL_WORDS = {
    "thr": "THR sets",
    "aps": "APS sets",
    "raps": "RAPS sets",
    "class_conditional": "class-conditional sets",
    "clustered": "clustered sets",
    "prevalence_adjusted": "prevalence-adjusted sets",
}

COVERAGE = 0.9
"""Share of images whose class the prediction sets of a run are built to hold."""


@dataclass(frozen=True)
class MetricEntry:
    """One entry of the table of metrics.

    Attributes:
        pattern: The metric's key in the records, ``split/group/name``; ``*`` matches any one part.
        label: Its name in words. ``{0}`` is the words of the part that the first ``*`` matches, and so on. Without a
            placeholder a leading ``*`` is the split, which is added in parentheses unless it is the test set.
        direction: Which way is better; ``"neither"`` for metrics that only describe, such as collapse and counts.
        unit: ``"points"`` for fractions, which are shown in per cent with differences in percentage points.
        decimals: Digits after the point; None writes three significant digits.
        column: Heading in the summary table; "" leaves the metric out of it.
        meaning: What that column shows.
        then: Key of a second metric that the column shows after an arrow, if it was recorded.
        instead_of: Key of a metric that takes this one's place in the summary table, if it was recorded.
        forest: Whether the report draws its differences in a forest plot beside the primary metric.
        cost: Whether the report lists it in the cost table.
        split: The split that the summary table and the forest plots show.
        group: Heading under which a table of all metrics lists it.
        help: What it measures and how to read it, in a sentence.
    """

    pattern: str
    label: str
    direction: Direction = "neither"
    unit: Unit = ""
    decimals: int | None = None
    column: str = ""
    meaning: str = ""
    then: str = ""
    instead_of: str = ""
    forest: bool = False
    cost: bool = False
    split: str = "test"
    group: str = "Other values"
    help: str = ""

    @property
    def key(self) -> str:
        """The metric key that summary table, forest plots and cost table show for this entry."""
        return self.pattern.replace("*", self.split, 1)


def in_group(group: str, entries: Iterable[MetricEntry]) -> tuple[MetricEntry, ...]:
    """Return copies of the entries with their attribute ``group`` set."""
    return tuple(replace(entry, group=group) for entry in entries)


def fraction(pattern: str, label: str, direction: Direction, text: str) -> MetricEntry:
    """Return the entry of a fraction, which is shown in per cent."""
    return MetricEntry(pattern, label, direction, "points", 1, help=text)
