"""The collapse report: a table on the terminal, one self-contained page, JSON, and figures as files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nc_tools._support.atomic_write import atomic_write
from nc_tools.measuring import collapse_figures
from nc_tools.measuring.interpretation import HEAD_ROWS, ROWS, collapse_headline, reading
from nc_tools.measuring.measure import CollapseMeasurement

_LAYER_CURVES = (
    ("nc1_trace", "NC1, trace ratio", True),
    ("nc2_equiangular", "NC2, unequal angles", False),
    ("nc4_disagreement", "NC4, other than nearest mean", False),
)
_AT_THE_HEAD = "features at the head"
_JSON_CLASSES = 200


@dataclass(frozen=True, eq=False)
class Report:
    """What a report shows.

    Attributes:
        model: Its name.
        data: Its name.
        head: Dotted path of the head.
        feature_dim: D of the features that reach it.
        classes: K names.
        sets: What was found, by the set's name.
        notes: What a reader must know, each a sentence.
        version: Of this package.
        torch: PyTorch's.
        device: Where it ran.
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
class ReportLine:
    """One row of a table."""

    label: str
    cells: tuple[str, ...]
    reading: str


@dataclass(frozen=True)
class Table:
    """A table of quantities, a column for each set and labeling."""

    title: str
    lead: str
    columns: tuple[str, ...]
    lines: tuple[ReportLine, ...]


def tables(report: Report) -> list[Table]:
    """Return the tables of a report: at the head, behind its own map, and of its rows; those that hold something."""
    made = [
        _of_features(report, "nc", "At the head", "Features as they reach the head, comparable between heads."),
        _of_features(
            report, "nc_embedded", "Behind the head's own map",
            "The same after the head's projection and normalization, where its class vectors live.",
        ),
    ]  # fmt: skip
    first = next(iter(report.sets.values()))
    rows = tuple(
        ReportLine(label, (format_number(first.values[f"head/{key}"]),), said)
        for key, (label, said) in HEAD_ROWS.items()
        if f"head/{key}" in first.values and (key != "seli_weight" or "head/minority_cosine" in first.values)
    )
    lead = "Class vectors of rare and frequent classes, by training counts."
    made.append(Table("Rows of the head", lead, ("head",), rows))
    return [table for table in made if table.lines]


def _of_features(report: Report, group: str, title: str, lead: str) -> Table:
    places = [
        (name if labeling == "" else f"{name}, true labels", name, f"{group}{labeling}")
        for name, found in report.sets.items()
        for labeling in ("", "_clean")
        if any(key.startswith(f"{group}{labeling}/") for key in found.values)
    ]
    lines = []
    for row in ROWS:
        values = [report.sets[name].values.get(f"{prefix}/{row.key}") for _, name, prefix in places]
        if any(value is not None for value in values):
            train, test = (
                report.sets[name].values.get(f"{group}/{row.key}") if name in report.sets else None
                for name in ("train", "test")
            )
            lines.append(ReportLine(row.label, tuple(map(format_number, values)), reading(row, train, test)))
    return Table(title, lead, tuple(heading for heading, _, _ in places), tuple(lines))


def format_number(value: float | None) -> str:
    """Write a quantity with three figures; a dash where it has none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        text = f"{value:.1e}"
    else:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", "−")


def write_collapse_report(report: Report, out: Path) -> dict[str, Path]:
    """Write ``collapse.html``, ``collapse.json`` and ``figures/*.svg`` into a folder, each whole or not at all.

    Returns:
        The path of each file by its name.
    """
    (out / "figures").mkdir(parents=True, exist_ok=True)
    drawings = _drawings(report)
    written = {name: out / "figures" / f"{name}.svg" for name in drawings}
    for name, drawing in drawings.items():
        _write(written[name], collapse_figures.alone(drawing))
    written["json"] = _write(out / "collapse.json", collapse_json(report))
    written["html"] = _write(out / "collapse.html", collapse_html(report))
    return written


def collapse_json(report: Report) -> str:
    """Write everything as JSON; what is not finite becomes null."""
    sets = {
        name: {
            "samples": found.samples,
            "values": found.values,
            "layers": found.layers,
            "counts": found.counts.tolist(),
            "spread": found.spread.tolist(),
            "cosines": found.cosines.tolist() if found.cosines is not None and len(report.classes) <= _JSON_CLASSES
            else None,
        }
        for name, found in report.sets.items()
    }  # fmt: skip
    whole = {
        "schema": 1, "model": report.model, "data": report.data, "head": report.head, "feature_dim": report.feature_dim,
        "classes": report.classes, "sets": sets, "notes": report.notes,
        "versions": {"nc_tools": report.version, "torch": report.torch}, "device": report.device,
    }  # fmt: skip
    return json.dumps(_finite(whole), indent=1) + "\n"


def collapse_html(report: Report) -> str:
    """Render one page that needs nothing else: no script, no request, light and dark."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("nc_tools.measuring"), PackageLoader("nc_tools.comparison")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawings = _drawings(report)
    train, test = (report.sets[name].values if name in report.sets else None for name in ("train", "test"))
    chosen, bars = _heat_classes(report), _bar_classes(report)
    return environment.get_template("collapse.html.j2").render(
        r=report,
        style=collapse_figures.STYLE,
        collapse_headline=collapse_headline(train, test),
        tables=tables(report),
        heat=[(name, drawings[f"angles-{name}"], _angles_caption(report, name))
              for name in report.sets if f"angles-{name}" in drawings],
        heat_shown=len(chosen), heat_left_out=len(chosen) < len(report.classes),
        curves=[drawing for name, drawing in drawings.items() if name.startswith("layers-")],
        layer_headings=_layer_headings(report), layer_lines=_layer_lines(report),
        bars=drawings["spread"], bars_shown=len(bars), bars_left_out=len(bars) < len(report.classes),
    )  # fmt: skip


def _drawings(report: Report) -> dict[str, Markup]:
    found: dict[str, Markup] = {}
    chosen = _heat_classes(report)
    for name, told in report.sets.items():
        if told.cosines is not None:
            label = f"{name}: cosines of class means; {_angles_caption(report, name)}"
            found[f"angles-{name}"] = collapse_figures.heat_map(told.cosines, report.classes, chosen, label)
    for key, title, log in _LAYER_CURVES:
        curves = {name: _curve(told, key) for name, told in report.sets.items()}
        if all(len(curve) > 1 and any(v is not None for v in curve) for curve in curves.values()):
            label = f"{title} from the first layer to the head"
            found[f"layers-{key}"] = collapse_figures.layer_curves(curves, title, log=log, label=label)
    spread = {name: told.spread for name, told in report.sets.items()}
    counts = {name: told.counts for name, told in report.sets.items()}
    label = "variance within each class"
    found["spread"] = collapse_figures.spread_bars(spread, counts, report.classes, _bar_classes(report), label)
    return found


def _curve(found: CollapseMeasurement, key: str) -> list[float | None]:
    return [*(told.get(key) for told in _plain_layers(found).values()), found.values.get(f"nc/{key}")]


def _plain_layers(found: CollapseMeasurement) -> dict[str, dict[str, float]]:
    return {name: told for name, told in found.layers.items() if not name.endswith("_clean")}


def _heat_classes(report: Report) -> list[int]:
    first = next(iter(report.sets.values()))
    return [] if first.cosines is None else collapse_figures.closest_classes(first.cosines)


def _bar_classes(report: Report) -> list[int]:
    return collapse_figures.widest_classes({name: found.spread for name, found in report.sets.items()})


def _angles_caption(report: Report, name: str) -> str:
    cosines = report.sets[name].cosines
    if cosines is None:
        return ""
    near = cosines.clone().fill_diagonal_(-2).nan_to_num(nan=-2.0)
    place = int(near.argmax())
    i, j = divmod(place, len(near))
    return f"nearest pair: {report.classes[i]} and {report.classes[j]}, cosine {float(near[i, j]):.3f}"


def _layer_headings(report: Report) -> list[str]:
    return [f"{title.split(',')[0]}, {name}" for _, title, _ in _LAYER_CURVES for name in report.sets]


def _layer_lines(report: Report) -> list[ReportLine]:
    first = next(iter(report.sets.values()))
    names = [*_plain_layers(first), _AT_THE_HEAD]
    columns = [_curve(found, key) for key, _, _ in _LAYER_CURVES for found in report.sets.values()]
    return [
        ReportLine(f"{place + 1}  {name}", tuple(format_number(column[place]) for column in columns), "")
        for place, name in enumerate(names)
    ]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(part) for part in value]
    return value


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
