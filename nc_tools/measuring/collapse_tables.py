"""The contents of a collapse report, and its tables of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from nc_tools.measuring.interpretation import FEATURE_READINGS, HEAD_READINGS, reading
from nc_tools.measuring.measure import CollapseMeasurement


@dataclass(frozen=True, eq=False)
class CollapseReport:
    """The contents of a collapse report.

    Attributes:
        model: Name of the model.
        data: Name of the data.
        head: Dotted path of the head.
        feature_dim: D, the width of the features that reach the head.
        classes: K names.
        sets: Measurement of each image set, by the set's name.
        notes: Remarks, each a sentence.
        version: Version of this package.
        torch: Version of PyTorch.
        device: Name of the device on which the model ran.
    """

    model: str
    data: str
    head: str
    feature_dim: int
    classes: tuple[str, ...]
    sets: Mapping[str, CollapseMeasurement]
    notes: tuple[str, ...]
    version: str
    torch: str
    device: str


@dataclass(frozen=True)
class CollapseRow:
    """One row of a collapse report's table: the metric's name, its value in each column, and the value in words."""

    label: str
    cells: tuple[str, ...]
    reading: str


@dataclass(frozen=True)
class CollapseTable:
    """A table of a collapse report, with a column for each image set and kind of labels (given or true)."""

    title: str
    lead: str
    columns: tuple[str, ...]
    rows: tuple[CollapseRow, ...]


def collapse_tables(report: CollapseReport) -> list[CollapseTable]:
    """Return the tables of a report that have rows, of up to three.

    They are about the features that enter the head, the features after its projection and normalization, and its class
    vectors.
    """
    tables = [
        _feature_table(report, "nc", "At the head", "Features as they reach the head, comparable between heads."),
        _feature_table(
            report,
            "nc_embedded",
            "After the head's own map",
            "Features after the head's projection and normalization, in the space of its class vectors.",
        ),
        _head_table(report),
    ]
    return [table for table in tables if table.rows]


def format_number(value: float | None) -> str:
    """Return a number as text with about three significant digits; a dash if it is None or not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        text = f"{value:.1e}"
    else:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", "−")


def _head_table(report: CollapseReport) -> CollapseTable:
    values = next(iter(report.sets.values())).values
    rows = tuple(
        CollapseRow(label, (format_number(values[f"head/{key}"]),), meaning)
        for key, (label, meaning) in HEAD_READINGS.items()
        if f"head/{key}" in values and (key != "seli_weight" or "head/minority_cosine" in values)
    )
    return CollapseTable(
        "Rows of the head", "Class vectors of rare and frequent classes, by training counts.", ("head",), rows
    )


def _feature_table(report: CollapseReport, group: str, title: str, lead: str) -> CollapseTable:
    columns = [
        (name if labeling == "" else f"{name}, true labels", name, f"{group}{labeling}")
        for name, measurement in report.sets.items()
        for labeling in ("", "_clean")
        if any(key.startswith(f"{group}{labeling}/") for key in measurement.values)
    ]
    rows = []
    for measure in FEATURE_READINGS:
        values = [report.sets[name].values.get(f"{prefix}/{measure.key}") for _, name, prefix in columns]
        if any(value is not None for value in values):
            train, test = (
                report.sets[name].values.get(f"{group}/{measure.key}") if name in report.sets else None
                for name in ("train", "test")
            )
            rows.append(CollapseRow(measure.label, tuple(map(format_number, values)), reading(measure, train, test)))
    return CollapseTable(title, lead, tuple(heading for heading, _, _ in columns), tuple(rows))
