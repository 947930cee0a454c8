"""Two figures of a single run, as SVG files that MLflow shows beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from torch import Tensor

from nc_tools.metrics import reliability_bins
from nc_tools.plots import svg

_STYLE = """text{font:11px system-ui,sans-serif;fill:#444}.title{font-weight:600;fill:#111}.grid{stroke:#ddd}
.axis{stroke:#666}.ideal{stroke:#999;fill:none;stroke-dasharray:2 3}.one{stroke:#0068a8;fill:none;stroke-width:2}
.two{stroke:#c04e00;fill:none;stroke-width:2;stroke-dasharray:5 3}.dot-one{fill:#0068a8}.dot-two{fill:#c04e00}"""
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 300, 240, 46, 30, 12, 36

Curve = Sequence[tuple[float, float]]


def reliability_figure(logits: Tensor, labels: Tensor, temperature: float | None) -> str:
    """Draw accuracy against confidence over 15 equal bins, before and after temperature scaling.

    Args:
        logits: (N, K).
        labels: (N,).
        temperature: From the hold-out run; None draws one curve only.
    """
    curves: dict[str, Curve] = {"as trained": _bins(logits, labels)}
    if temperature is not None:
        curves[f"temperature {temperature:.2f}"] = _bins(logits / temperature, labels)
    axes = (svg.Axis(0, 1), svg.Axis(0, 1))
    ideal = svg.polyline([_point(axes, 0, 0), _point(axes, 1, 1)], "ideal")
    return _document([_panel("accuracy against confidence", "confidence", axes, curves, [ideal])])


def collapse_figure(curves: Mapping[str, Curve]) -> str:
    """Draw NC1, NC2 and NC3 over epochs on log scales, on the training images and on the hold-out.

    Args:
        curves: Of the run's record, by key; what is missing is left out.
    """
    panels = []
    for title, name in (
        ("NC1 (pinv)", "nc1_pinv"),
        ("NC2 (equiangularity)", "nc2_equiangular"),
        ("NC3", "nc3_distance"),
    ):
        found = {split: _positive(curves.get(f"{split}/nc/{name}", ())) for split in ("train", "holdout")}
        shown = {split: curve for split, curve in found.items() if curve}
        if shown:
            points = [point for curve in shown.values() for point in curve]
            axes = (svg.axis_over([x for x, _ in points], log=True), svg.axis_over([y for _, y in points], log=True))
            panels.append(_panel(title, "epoch", axes, shown, []))
    return _document(panels)


def write_figures(
    folder: Path, logits: Tensor, labels: Tensor, temperature: float | None, curves: Mapping[str, Curve]
) -> None:
    """Write ``reliability.svg`` and ``collapse.svg`` into a run's folder of figures."""
    (folder / "reliability.svg").write_text(reliability_figure(logits, labels, temperature))
    (folder / "collapse.svg").write_text(collapse_figure(curves))


def _bins(logits: Tensor, labels: Tensor) -> Curve:
    bins = reliability_bins(logits, labels)
    return [(c, a) for c, a in zip(bins.confidence, bins.accuracy, strict=True) if c is not None and a is not None]


def _positive(curve: Curve) -> Curve:
    return [(x, y) for x, y in curve if y > 0]


def _point(axes: tuple[svg.Axis, svg.Axis], x: float, y: float) -> tuple[float, float]:
    across, up = axes[0].place(x), axes[1].place(y)
    return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)


def _panel(
    title: str, x_label: str, axes: tuple[svg.Axis, svg.Axis], curves: Mapping[str, Curve], behind: Sequence[Markup]
) -> Markup:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [svg.text(_LEFT, 13, title, "title", "start")]
    for tick in axes[1].ticks(4):
        y = _point(axes, axes[0].low, tick)[1]
        parts += [svg.line(_LEFT, y, right, y, "grid"), svg.text(_LEFT - 5, y + 4, svg.svg_number(tick), "tick", "end")]
    for tick in axes[0].ticks(5):
        x = _point(axes, tick, axes[1].low)[0]
        parts += [svg.line(x, bottom, x, bottom + 3, "axis"), svg.text(x, bottom + 14, svg.svg_number(tick), "tick")]
    parts += [
        svg.line(_LEFT, bottom, right, bottom, "axis"),
        svg.text(right, _HEIGHT - 6, x_label, "tick", "end"),
        *behind,
    ]
    for position, (kind, (name, curve)) in enumerate(zip(("one", "two"), curves.items(), strict=False)):
        points = [_point(axes, x, y) for x, y in curve]
        parts.append(svg.polyline(points, kind))
        parts += [svg.circle(x, y, 2.5, f"dot-{kind}") for x, y in points]
        start = _LEFT + 110 * position
        parts += [svg.line(start, 22, start + 20, 22, kind), svg.text(start + 25, 26, name, "tick", "start")]
    return svg.joined(parts)


def _document(panels: Sequence[Markup]) -> str:
    width = _WIDTH * max(1, len(panels))
    moved = [
        Markup('<g transform="translate({},0)">{}</g>').format(_WIDTH * index, panel)
        for index, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}">'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{svg.joined(moved)}</svg>\n'
    )
