"""Write the collapse report as files: a self-contained HTML page, JSON, and each plot as an SVG file."""

from __future__ import annotations

import json
from pathlib import Path

from markupsafe import Markup

from nc_tools._support.atomic_write import atomic_write
from nc_tools.measuring.collapse_figures import (
    closest_classes,
    heat_map,
    layer_curves,
    spread_bars,
    widest_classes,
)
from nc_tools.measuring.collapse_tables import CollapseReport, CollapseRow, collapse_tables, format_number
from nc_tools.measuring.interpretation import collapse_headline
from nc_tools.measuring.measure import CollapseMeasurement
from nc_tools.plots.html_page import render_page
from nc_tools.plots.standalone import svg_document
from nc_tools.run_records.json_files import finite_or_null

_LAYER_CURVES = (
    ("nc1_trace", "NC1, trace ratio", True),
    ("nc2_equiangular", "NC2, unequal angles", False),
    ("nc4_disagreement", "NC4, not the nearest mean", False),
)
_HEAD_LAYER = "features at the head"
_MAX_JSON_CLASSES = 200


def write_collapse_report(report: CollapseReport, out: Path) -> dict[str, Path]:
    """Write a report to ``collapse.html``, ``collapse.json`` and ``figures/*.svg``; a failed write keeps the old file.

    Returns:
        The path of each file by its name.
    """
    (out / "figures").mkdir(parents=True, exist_ok=True)
    drawings = _drawings(report)
    written = {name: out / "figures" / f"{name}.svg" for name in drawings}
    for name, drawing in drawings.items():
        _write(written[name], svg_document(drawing))
    written["json"] = _write(out / "collapse.json", collapse_json(report))
    written["html"] = _write(out / "collapse.html", collapse_html(report))
    return written


def collapse_json(report: CollapseReport) -> str:
    """Return a collapse report as JSON text; numbers that are not finite become null."""
    with_cosines = len(report.classes) <= _MAX_JSON_CLASSES
    sets = {
        name: {
            "samples": measurement.samples,
            "values": measurement.values,
            "layers": measurement.layers,
            "counts": measurement.counts.tolist(),
            "spread": measurement.spread.tolist(),
            "cosines": measurement.cosines.tolist() if measurement.cosines is not None and with_cosines else None,
        }
        for name, measurement in report.sets.items()
    }
    content = {
        "schema": 1, "model": report.model, "data": report.data, "head": report.head, "feature_dim": report.feature_dim,
        "classes": report.classes, "sets": sets, "notes": report.notes,
        "versions": {"nc_tools": report.version, "torch": report.torch}, "device": report.device,
    }  # fmt: skip
    return json.dumps(finite_or_null(content), indent=1) + "\n"


def collapse_html(report: CollapseReport) -> str:
    """Return the HTML page of a collapse report."""
    drawings = _drawings(report)
    train, test = (report.sets[name].values if name in report.sets else None for name in ("train", "test"))
    heat_classes, bar_classes = _heat_classes(report), _bar_classes(report)
    values = {
        "r": report,
        "headline": collapse_headline(train, test),
        "tables": collapse_tables(report),
        "heat": [(name, drawings[f"angles-{name}"], _angles_caption(report, name))
                 for name in report.sets if f"angles-{name}" in drawings],
        "heat_shown": len(heat_classes), "heat_left_out": len(heat_classes) < len(report.classes),
        "curves": [drawing for name, drawing in drawings.items() if name.startswith("layers-")],
        "layer_headings": _layer_headings(report), "layer_rows": _layer_rows(report),
        "bars": drawings["spread"], "bars_shown": len(bar_classes),
        "bars_left_out": len(bar_classes) < len(report.classes),
    }  # fmt: skip
    return render_page("nc_tools.measuring", "collapse.html.j2", values)


def _drawings(report: CollapseReport) -> dict[str, Markup]:
    drawings: dict[str, Markup] = {}
    heat_classes = _heat_classes(report)
    for name, measurement in report.sets.items():
        if measurement.cosines is not None and len(heat_classes) > 1:
            label = f"{name}: cosines of class means; {_angles_caption(report, name)}"
            drawings[f"angles-{name}"] = heat_map(measurement.cosines, report.classes, heat_classes, label)
    for key, title, log in _LAYER_CURVES:
        curves = {name: _layer_values(measurement, key) for name, measurement in report.sets.items()}
        if all(len(curve) > 1 and any(v is not None for v in curve) for curve in curves.values()):
            label = f"{title} from the first layer to the head"
            drawings[f"layers-{key}"] = layer_curves(curves, title, log=log, label=label)
    spread = {name: measurement.spread for name, measurement in report.sets.items()}
    counts = {name: measurement.counts for name, measurement in report.sets.items()}
    label = "variance within each class"
    drawings["spread"] = spread_bars(spread, counts, report.classes, _bar_classes(report), label)
    return drawings


def _layer_values(measurement: CollapseMeasurement, key: str) -> list[float | None]:
    """Return the values of one metric from the first layer to the features that reach the head."""
    of_layers = [values.get(key) for values in _given_label_layers(measurement).values()]
    return [*of_layers, measurement.values.get(f"nc/{key}")]


def _given_label_layers(measurement: CollapseMeasurement) -> dict[str, dict[str, float]]:
    return {name: values for name, values in measurement.layers.items() if not name.endswith("_clean")}


def _heat_classes(report: CollapseReport) -> list[int]:
    first = next(iter(report.sets.values()))
    return [] if first.cosines is None else closest_classes(first.cosines)


def _bar_classes(report: CollapseReport) -> list[int]:
    return widest_classes({name: measurement.spread for name, measurement in report.sets.items()})


def _angles_caption(report: CollapseReport, name: str) -> str:
    cosines = report.sets[name].cosines
    if cosines is None:
        return ""
    off_diagonal = cosines.clone().fill_diagonal_(-2).nan_to_num(nan=-2.0)
    i, j = divmod(int(off_diagonal.argmax()), len(off_diagonal))
    return f"closest pair: {report.classes[i]} and {report.classes[j]}, cosine {float(off_diagonal[i, j]):.3f}"


def _layer_headings(report: CollapseReport) -> list[str]:
    return [f"{title.split(',')[0]}, {name}" for _, title, _ in _LAYER_CURVES for name in report.sets]


def _layer_rows(report: CollapseReport) -> list[CollapseRow]:
    first = next(iter(report.sets.values()))
    names = [*_given_label_layers(first), _HEAD_LAYER]
    columns = [_layer_values(measurement, key) for key, _, _ in _LAYER_CURVES for measurement in report.sets.values()]
    return [
        CollapseRow(f"{place + 1}  {name}", tuple(format_number(column[place]) for column in columns), "")
        for place, name in enumerate(names)
    ]


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
