"""Plots of a collapse report: angles between classes, collapse over layers, spread of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup
from torch import Tensor

from nc_tools.plots import svg
from nc_tools.plots.axis import Axis, axis_over
from nc_tools.plots.panel_frame import Frame, Margins

# With more classes than these, only the closest pairs and the widest classes are shown.
_MAX_HEAT_CLASSES, _MAX_BAR_CLASSES = 40, 30
_KINDS = {"train": "one", "test": "two"}
_MAX_NAME_LENGTH = 18


def heat_map(cosines: Tensor, classes: Sequence[str], chosen: Sequence[int], label: str) -> Markup:
    """Plot the cosine of each pair of class means: blue if closer than in a simplex, orange if farther.

    Args:
        cosines: Cosines of the centered class means (K, K), NaN for classes without a sample.
        classes: K names.
        chosen: The classes to show, in order.
        label: Description for screen readers.
    """
    number = len(chosen)
    present = int((~cosines.diagonal().isnan()).sum())
    simplex = -1 / (present - 1)
    cell, left, top = max(7.0, min(30.0, 330 / number)), 110.0, 4.0
    with_names = number <= 25
    values = cosines[list(chosen)][:, list(chosen)].tolist()
    deviations = [abs(v - simplex) for i, row in enumerate(values) for j, v in enumerate(row)
                  if i != j and math.isfinite(v)]  # fmt: skip
    largest = max([0.2, *deviations])
    parts: list[Markup] = []
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            x, y = left + j * cell, top + i * cell
            title = f"{classes[chosen[i]]}, {classes[chosen[j]]}: cosine {value:.3f}"
            if i == j:
                parts.append(svg.rect(x, y, cell - 0.6, cell - 0.6, "own"))
            elif math.isfinite(value):
                parts.append(_cell(x, y, cell - 0.6, value - simplex, largest, title))
        if with_names:
            parts.append(svg.text(left - 5, top + (i + 0.5) * cell + 3.5, _short(classes[chosen[i]]), "tick", "end"))
    side = number * cell
    if not with_names:
        parts.append(svg.text(left - 5, top + 12, f"{number} classes", "tick", "end"))
    parts += _heat_key(left, top + side + 14, max(side, 150.0), simplex, largest)
    return svg.picture(450, top + side + 46, label, parts)


def closest_classes(cosines: Tensor, most: int = _MAX_HEAT_CLASSES) -> list[int]:
    """Return the indices of the classes that the heat map shows, sorted.

    These are all classes with samples, or if there are more than ``most``, those with the largest cosine to another
    class.
    """
    present = (~cosines.diagonal().isnan()).nonzero().flatten().tolist()
    if len(present) <= most:
        return list(present)
    nearest = cosines.clone().fill_diagonal_(-2).nan_to_num(nan=-2.0).amax(dim=1)
    return sorted(nearest.topk(most).indices.tolist())


def layer_curves(curves: Mapping[str, Sequence[float | None]], title: str, *, log: bool, label: str) -> Markup:
    """Plot one metric from the first layer to the head, one curve for each image set.

    Args:
        curves: Values in the order of the layers, by the set's name; None for a layer without a value.
        title: Name of the measure, written above the axis.
        log: Whether the scale is logarithmic.
        label: Description for screen readers.
    """
    values = [value for curve in curves.values() for value in curve if value is not None and (value > 0 or not log)]
    number = max(len(curve) for curve in curves.values())
    up = axis_over(values, log=log) if log else Axis(0.0, max([*values, 1e-9]) * 1.08)
    across = Axis(1.0, max(float(number), 2.0))
    frame = Frame(across, up, 330.0, 210.0, Margins(44.0, 12.0, 24.0, 34.0))
    ticks = range(1, number + 1, max(1, math.ceil(number / 12)))
    parts = frame.axes("layer, input to head", title + (", log scale" if log else ""), x_ticks=ticks)
    for name, curve in curves.items():
        kind = _KINDS.get(name, "one")
        points = [(i + 1.0, v) for i, v in enumerate(curve) if v is not None and (v > 0 or not log)]
        parts.append(svg.polyline(frame.points(points), f"curve {kind}"))
        parts += [svg.circle(*frame.point(x, y), 2.8, f"dot {kind}", f"{name}: {y:.3g}") for x, y in points]
    return svg.picture(frame.width, frame.height, label, parts)


def widest_classes(spread: Mapping[str, Tensor], most: int = _MAX_BAR_CLASSES) -> list[int]:
    """Return the indices of the classes that the spread plot shows.

    These are all classes with samples, or if there are more than ``most``, those with the largest spread in the first
    set, largest first.
    """
    first = next(iter(spread.values()))
    present = (~first.isnan()).nonzero().flatten().tolist()
    if len(present) <= most:
        return list(present)
    return [int(k) for k in first.nan_to_num(nan=-1.0).topk(most).indices.tolist()]


def spread_bars(
    spread: Mapping[str, Tensor],
    counts: Mapping[str, Tensor],
    classes: Sequence[str],
    chosen: Sequence[int],
    label: str,
) -> Markup:
    """Plot the relative variance within each class, one bar per image set.

    Args:
        spread: Relative variance of each class (K,), by the set's name.
        counts: Samples of each class (K,), by the set's name.
        classes: K names.
        chosen: The classes to show, in order.
        label: Description for screen readers.
    """
    width, left, right, top, thickness = 720.0, 130.0, 64.0, 8.0, 9.0
    row = thickness * len(spread) + 8
    longest = max([1e-9, *(float(v[k]) for v in spread.values() for k in chosen if math.isfinite(float(v[k])))])
    axis = Axis(0.0, longest * 1.02)
    height = top + row * len(chosen) + 34
    parts: list[Markup] = []
    for tick in axis.ticks(5):
        x = left + axis.place(tick) * (width - left - right)
        parts += [svg.line(x, top, x, height - 30, "grid"), svg.text(x, height - 16, svg.svg_number(tick), "tick")]
    for i, k in enumerate(chosen):
        y = top + i * row
        parts.append(svg.text(left - 8, y + row / 2 + 1, _short(classes[k]), "tick", "end"))
        for j, (name, values) in enumerate(spread.items()):
            value = float(values[k])
            if math.isfinite(value):
                length = max(axis.place(value) * (width - left - right), 0.5)
                title = f"{classes[k]}, {name}: {value:.3g} ({int(counts[name][k])} images)"
                kind = f"bar-{_KINDS.get(name, 'one')}"
                parts.append(svg.rect(left, y + 2 + j * thickness, length, thickness - 1.5, kind, title=title))
    parts.append(svg.line(left, top, left, height - 30, "zero"))
    parts.append(svg.text(width - right, height - 2, "variance within the class / mean squared length of class means",
                          "label", "end"))  # fmt: skip
    return svg.picture(width, height, label, parts)


def _cell(x: float, y: float, side: float, deviation: float, largest: float, title: str) -> Markup:
    kind = "pos" if deviation > 0 else "neg"
    return svg.rect(x, y, side, side, kind, title=title, opacity=min(1.0, abs(deviation) / largest))


def _heat_key(left: float, top: float, width: float, simplex: float, largest: float) -> list[Markup]:
    # The color scale is symmetric about the cosine in a simplex, but the key ends at the cosines -1 and 1.
    low, high = max(-1.0, simplex - largest), min(1.0, simplex + largest)
    number = 21
    side = width / number
    parts = [
        _cell(left + i * side, top, side, low + (i + 0.5) / number * (high - low) - simplex, largest, "")
        for i in range(number)
    ]
    parts.append(svg.rect(left, top, width, side, "frame"))
    place, below = (simplex - low) / (high - low), top + side + 13
    parts += [
        svg.text(left - 4, below, svg.svg_number(round(low, 2)), "tick", "end"),
        svg.text(left + place * width, below, f"simplex {simplex:.3g}", "tick", "start" if place < 0.1 else "middle"),
        svg.text(left + width, below, svg.svg_number(round(high, 2)), "tick", "end"),
    ]
    return parts


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 1]}…"
