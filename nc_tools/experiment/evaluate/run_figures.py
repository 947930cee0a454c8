"""Two figures of a single run, as SVG files that MLflow shows with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from torch import Tensor

from nc_tools.metrics import reliability_bins
from nc_tools.plots import svg
from nc_tools.plots.axis import Axis, axis_over
from nc_tools.plots.panel_frame import Curve, Frame, Margins, curve_key
from nc_tools.plots.standalone import svg_document

_WIDTH, _HEIGHT = 300.0, 240.0
_MARGINS = Margins(46.0, 12.0, 34.0, 36.0)


def reliability_figure(logits: Tensor, labels: Tensor, temperature: float | None) -> str:
    """Draw accuracy over confidence in 15 equal bins, before and after temperature scaling.

    Args:
        logits: (N, K).
        labels: (N,).
        temperature: From the hold-out run; None draws one curve only.
    """
    curves: dict[str, Curve] = {"as trained": _bins(logits, labels)}
    if temperature is not None:
        curves[f"temperature {temperature:.2f}"] = _bins(logits / temperature, labels)
    frame = Frame(Axis(0, 1), Axis(0, 1), _WIDTH, _HEIGHT, _MARGINS)
    ideal = svg.polyline(frame.points([(0, 0), (1, 1)]), "ideal")
    return _document("Reliability diagram", [_panel("accuracy over confidence", "confidence", frame, curves, [ideal])])


def collapse_figure(curves: Mapping[str, Curve]) -> str:
    """Draw NC1, NC2 and NC3 over epochs on log scales, on the training images and on the hold-out.

    Args:
        curves: Curves of the run's record, by key; missing ones are left out.
    """
    panels = []
    for title, name in (
        ("NC1 (pinv)", "nc1_pinv"),
        ("NC2 (equiangularity)", "nc2_equiangular"),
        ("NC3", "nc3_distance"),
    ):
        by_split = {split: _positive(curves.get(f"{split}/nc/{name}", ())) for split in ("train", "holdout")}
        by_split = {split: curve for split, curve in by_split.items() if curve}
        if by_split:
            points = [point for curve in by_split.values() for point in curve]
            x, y = (axis_over([point[i] for point in points], log=True) for i in (0, 1))
            panels.append(_panel(title, "epoch", Frame(x, y, _WIDTH, _HEIGHT, _MARGINS), by_split, []))
    return _document("Collapse over epochs", panels)


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


def _panel(
    title: str, x_name: str, frame: Frame, curves: Mapping[str, Curve], behind: Sequence[Markup]
) -> list[Markup]:
    kinds = dict(zip(curves, ("one", "two"), strict=False))
    parts = [
        svg.text(_MARGINS.left, 13, title, "heading", "start"),
        *curve_key([(kind, name) for name, kind in kinds.items()], _MARGINS.left, 23),
        *frame.axes(x_name, ""),
        *behind,
    ]
    for name, kind in kinds.items():
        points = frame.points(curves[name])
        parts.append(svg.polyline(points, f"curve {kind}"))
        parts += [svg.circle(x, y, 2.5, f"dot {kind}") for x, y in points]
    return parts


def _document(label: str, panels: Sequence[Sequence[Markup]]) -> str:
    moved = [svg.group(_WIDTH * index, 0, panel) for index, panel in enumerate(panels)]
    return svg_document(svg.picture(_WIDTH * max(1, len(panels)), _HEIGHT, label, moved))
