"""Name, direction and number format of each metric in reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from nc_tools._support.suggestions import did_you_mean
from nc_tools.comparison.metric_entry import (
    CLASS_GROUPS,
    CONFORMAL_WORDS,
    OOD_SCORES,
    OOD_SETS,
    SPLITS,
    TRANSFER_METHODS,
    Direction,
    MetricEntry,
    Unit,
)
from nc_tools.comparison.metric_table import METRICS


@dataclass(frozen=True)
class MetricInfo:
    """Name, direction (whether higher is better) and number format of one metric.

    Attributes:
        key: The metric's key in the records, ``split/group/name``.
        label: Its name in words.
        direction: Which way is better; ``"neither"`` for metrics that only describe.
        unit: ``"points"`` for fractions, which are shown in per cent with differences in percentage points.
        decimals: Digits after the point; None writes three significant digits.
        group: Heading under which a table of all metrics lists it.
        help: What it measures and how to read it, in a sentence; "" if the label says it.
        column: Its heading in a narrow table; "" if the label is short enough.
    """

    key: str
    label: str
    direction: Direction = "neither"
    unit: Unit = ""
    decimals: int | None = None
    group: str = "Other values"
    help: str = ""
    column: str = ""

    @property
    def arrow(self) -> str:
        """An upward arrow if higher is better, a downward arrow if lower is better, otherwise an empty string."""
        return {"higher": "↑", "lower": "↓", "neither": ""}[self.direction]

    @property
    def reading(self) -> str:
        """The direction in words, such as "higher is better"."""
        return {
            "higher": "higher is better",
            "lower": "lower is better",
            "neither": "descriptive, no direction is better",
        }[self.direction]

    def value(self, number: float | None) -> str:
        """Return a value of the metric as text, fractions in percent; a dash if it is None."""
        return "–" if number is None or not math.isfinite(number) else self._write(number)

    def difference(self, number: float | None) -> str:
        """Return a difference of the metric as text with its sign; a dash if it is None."""
        if number is None or not math.isfinite(number):
            return "–"
        text = self._write(number)
        return text if text.startswith("-") else f"+{text}"

    def mean_and_sd(self, mean: float | None, sd: float | None) -> str:
        """Return a mean and its standard deviation as text, both with the same number of decimals."""
        text = self.value(mean)
        if mean is None or sd is None or not math.isfinite(mean + sd):
            return text
        digits = len(text.partition(".")[2]) if "e" not in text else None
        scale = 100.0 if self.unit == "points" else 1.0
        return f"{text} ± {self.value(sd) if digits is None else f'{scale * sd:,.{digits}f}'}"

    def improvement(self, number: float) -> Literal["better", "worse", "neither"]:
        """Return whether a difference of the metric is "better" or "worse"; "neither" if it cannot be judged."""
        if self.direction == "neither" or number == 0 or not math.isfinite(number):
            return "neither"
        return "better" if (number > 0) == (self.direction == "higher") else "worse"

    def _write(self, number: float) -> str:
        shown = 100.0 * number if self.unit == "points" else number
        if self.decimals is not None:
            text = f"{shown:,.{self.decimals}f}"
        elif abs(shown) >= 1000:
            text = f"{shown:,.0f}"
        else:
            text = f"{shown:.3g}"
        return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


@cache
def metric_info(key: str) -> MetricInfo:
    """Return name, direction and number format of the metric with this key.

    A key without an entry keeps its key as its label and is not judged.

    Example:
        >>> metric_info("test/cal/nll").reading
        'lower is better'
        >>> metric_info("test/gen/balanced_accuracy").difference(0.021)
        '+2.1'
        >>> metric_info("my/own/number").label
        'my/own/number'
    """
    parts = key.split("/")
    entries = [entry for entry in METRICS if _matches(entry.pattern.split("/"), parts)]
    if not entries:
        return MetricInfo(key, key)
    entry = min(entries, key=lambda entry: entry.pattern.count("*"))  # the most specific one
    # The values at the best epoch have the same names as those of the last epoch: a group of their own keeps them
    # apart.
    group = "Best epoch on the hold-out" if parts[0] == "best" else entry.group
    label = _label(entry, parts)
    return MetricInfo(key, label, entry.direction, entry.unit, entry.decimals, group, entry.help, entry.column)


def check_metric_key(key: str) -> None:
    """Raise a ValueError for the key of a test metric that no run records.

    Raises:
        ValueError: If the key is unknown; the message suggests the nearest ones.

    Example:
        >>> check_metric_key("test/gen/balanced_acuracy")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: runs do not record 'test/gen/balanced_acuracy'; did you mean 'test/gen/balanced_accuracy' or ...
    """
    if key.startswith("test/") and metric_info(key).label == key:
        groups = ("test/gen/", "test/cal/", "test/cal_ts/", "test/cal_oracle/")
        keys = [entry.pattern.replace("*", "test", 1) for entry in METRICS]
        raise ValueError(f"runs do not record {key!r}; {did_you_mean(key, [k for k in keys if k.startswith(groups)])}")


def _matches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    return len(pattern) == len(parts) and all(p in ("*", part) for p, part in zip(pattern, parts, strict=True))


def _label(entry: MetricEntry, parts: Sequence[str]) -> str:
    matched = [part for p, part in zip(entry.pattern.split("/"), parts, strict=True) if p == "*"]
    if "{" in entry.label:
        words = (
            TRANSFER_METHODS
            if parts[0] == "transfer"
            else SPLITS | OOD_SETS | OOD_SCORES | CLASS_GROUPS | CONFORMAL_WORDS
        )
        return entry.label.format(*(words.get(part, part) for part in matched))
    if not matched or matched[0] == "test":
        return entry.label
    return f"{entry.label} ({SPLITS.get(matched[0], matched[0])})"
