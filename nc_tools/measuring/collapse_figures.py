"""Figures of a collapse report: angles between classes, collapse through the layers, spread of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup
from torch import Tensor

from nc_tools.plots import svg

# Beyond these, the classes that say most are shown.
HEAT_CLASSES, BAR_CLASSES = 40, 30
_KINDS = {"train": "one", "test": "two"}
_LONGEST_NAME = 18

STYLE = """svg .pos { fill: var(--one); } svg .neg { fill: var(--two); } svg .own { fill: var(--rule); }
svg .bar-one { fill: var(--one); } svg .bar-two { fill: var(--two); opacity: .8; }
svg .frame { fill: none; stroke: var(--rule); }"""
# For a figure in a file of its own: the report's sheet is not there.
_ALONE = """svg{--one:#0068a8;--two:#c04e00;--rule:#d8dee5;--muted:#59636f;background:#fff}
text{font:11px system-ui,sans-serif;fill:#59636f}.grid{stroke:#d8dee5}.zero{stroke:#59636f}
.curve{fill:none;stroke-width:2}.curve.one{stroke:#0068a8}.curve.two{stroke:#c04e00;stroke-dasharray:5 3}
.dot.one{fill:#0068a8}.dot.two{fill:#fff;stroke:#c04e00;stroke-width:1.5}"""


def heat_map(cosines: Tensor, classes: Sequence[str], chosen: Sequence[int], label: str) -> Markup:
    """Draw how much nearer (blue) or further (orange) each pair of class means is than in a simplex.

    Args:
        cosines: Of the centered class means (K, K).
        classes: K names.
        chosen: The classes to show, in order.
        label: For those who do not see it.
    """
    number = len(chosen)
    known = int((~cosines.diagonal().isnan()).sum())
    simplex = -1 / (known - 1)
    cell, left, top = max(7.0, min(30.0, 330 / number)), 110.0, 4.0
    names = number <= 25
    shown = cosines[list(chosen)][:, list(chosen)].tolist()
    strongest = max([0.2, *(abs(v - simplex) for i, row in enumerate(shown) for j, v in enumerate(row)
                            if i != j and math.isfinite(v))])  # fmt: skip
    parts: list[Markup] = []
    for i, row in enumerate(shown):
        for j, value in enumerate(row):
            x, y = left + j * cell, top + i * cell
            pair = f"{classes[chosen[i]]}, {classes[chosen[j]]}: cosine {value:.3f}"
            if i == j:
                parts.append(svg.rect(x, y, cell - 0.6, cell - 0.6, "own"))
            elif math.isfinite(value):
                parts.append(_cell(x, y, cell - 0.6, value - simplex, strongest, pair))
        if names:
            parts.append(svg.text(left - 5, top + (i + 0.5) * cell + 3.5, _short(classes[chosen[i]]), "tick", "end"))
    side = number * cell
    if not names:
        parts.append(svg.text(left - 5, top + 12, f"{number} classes", "tick", "end"))
    parts += _heat_key(left, top + side + 14, max(side, 150.0), simplex, strongest)
    return svg.picture(450, top + side + 46, label, parts)


def closest_classes(cosines: Tensor, most: int = HEAT_CLASSES) -> list[int]:
    """Return the classes to show: all, or those in the closest pairs, by rising number."""
    present = (~cosines.diagonal().isnan()).nonzero().flatten().tolist()
    if len(present) <= most:
        return list(present)
    nearest = cosines.clone().fill_diagonal_(-2).nan_to_num(nan=-2.0).amax(dim=1)
    return sorted(nearest.topk(most).indices.tolist())


def layer_curves(layers: Mapping[str, Sequence[float | None]], title: str, *, log: bool, label: str) -> Markup:
    """Draw one quantity from the first layer to the head, for each set.

    Args:
        layers: Values in the order of the layers, by the set's name; None where there is none.
        title: Over the axis.
        log: Whether on a logarithmic scale.
        label: For those who do not see it.
    """
    width, height, left, right, top, bottom = 330.0, 210.0, 44.0, 12.0, 24.0, 34.0
    values = [value for curve in layers.values() for value in curve if value is not None and (value > 0 or not log)]
    number = max(len(curve) for curve in layers.values())
    up = svg.axis_over(values, log=log) if log else svg.Axis(0.0, max([*values, 1e-9]) * 1.08)
    across = svg.Axis(1.0, max(float(number), 2.0))

    def point(x: float, y: float) -> tuple[float, float]:
        return left + across.place(x) * (width - left - right), height - bottom - up.place(y) * (height - top - bottom)

    parts: list[Markup] = []
    for tick in up.ticks(4):
        y = point(1, tick)[1]
        parts += [svg.line(left, y, width - right, y, "grid"),
                  svg.text(left - 5, y + 3.5, svg.svg_number(tick), "tick", "end")]  # fmt: skip
    for place in range(1, number + 1, max(1, math.ceil(number / 12))):
        parts.append(svg.text(point(place, up.low)[0], height - bottom + 14, str(place), "tick"))
    parts.append(svg.line(left, height - bottom, width - right, height - bottom, "zero"))
    parts.append(svg.text(width - right, height - 4, "layer, input to head", "label", "end"))
    parts.append(svg.text(0, 12, title + (", log scale" if log else ""), "label", "start"))
    for name, curve in layers.items():
        kind = _KINDS.get(name, "one")
        places = [(i + 1.0, v) for i, v in enumerate(curve) if v is not None and (v > 0 or not log)]
        parts.append(svg.polyline([point(*place) for place in places], f"curve {kind}"))
        parts += [svg.circle(*point(*place), 2.8, f"dot {kind}", f"{name}: {place[1]:.3g}") for place in places]
    return svg.picture(width, height, label, parts)


def widest_classes(spread: Mapping[str, Tensor], most: int = BAR_CLASSES) -> list[int]:
    """Return the classes to show: all, or the most spread, widest first where some are left out."""
    first = next(iter(spread.values()))
    present = (~first.isnan()).nonzero().flatten().tolist()
    if len(present) <= most:
        return list(present)
    return [int(place) for place in first.nan_to_num(nan=-1.0).topk(most).indices.tolist()]


def spread_bars(
    spread: Mapping[str, Tensor],
    counts: Mapping[str, Tensor],
    classes: Sequence[str],
    chosen: Sequence[int],
    label: str,
) -> Markup:
    """Draw the within-class variance of each class, over the mean squared distance of class means, a bar for each set.

    Args:
        spread: (K,) by the set's name.
        counts: Samples (K,) by the set's name.
        classes: K names.
        chosen: The classes to show, in order.
        label: For those who do not see it.
    """
    width, left, right, top, thick = 720.0, 130.0, 64.0, 8.0, 9.0
    row = thick * len(spread) + 8
    longest = max(
        [1e-9, *(float(part[k]) for part in spread.values() for k in chosen if math.isfinite(float(part[k])))]
    )
    axis = svg.Axis(0.0, longest * 1.02)
    height = top + row * len(chosen) + 34
    parts: list[Markup] = []
    for tick in axis.ticks(5):
        x = left + axis.place(tick) * (width - left - right)
        parts += [svg.line(x, top, x, height - 30, "grid"), svg.text(x, height - 16, svg.svg_number(tick), "tick")]
    for i, k in enumerate(chosen):
        y = top + i * row
        parts.append(svg.text(left - 8, y + row / 2 + 1, _short(classes[k]), "tick", "end"))
        for j, (name, part) in enumerate(spread.items()):
            value = float(part[k])
            if math.isfinite(value):
                title = f"{classes[k]}, {name}: {value:.3g} ({int(counts[name][k])} images)"
                parts.append(
                    _titled_bar(left, y + 2 + j * thick, axis.place(value) * (width - left - right), thick - 1.5,
                                f"bar-{_KINDS.get(name, 'one')}", title)
                )  # fmt: skip
    parts.append(svg.line(left, top, left, height - 30, "zero"))
    parts.append(svg.text(width - right, height - 2, "variance within the class / mean squared length of class means",
                          "label", "end"))  # fmt: skip
    return svg.picture(width, height, label, parts)


def alone(drawing: Markup) -> str:
    """Return a figure as a file of its own."""
    style = f"<style>{_ALONE}{STYLE.replace('svg .', '.')}</style>"
    head, rest = str(drawing).split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


def _cell(x: float, y: float, side: float, deviation: float, strongest: float, title: str) -> Markup:
    kind = "pos" if deviation > 0 else "neg"
    return Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}" fill-opacity="{:.3f}">'
        "<title>{}</title></rect>"
    ).format(x, y, side, side, kind, min(1.0, abs(deviation) / strongest), title)


def _titled_bar(x: float, y: float, width: float, height: float, kind: str, title: str) -> Markup:
    return Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"><title>{}</title></rect>'
    ).format(x, y, max(width, 0.5), height, kind, title)


def _heat_key(left: float, top: float, width: float, simplex: float, strongest: float) -> list[Markup]:
    # Colors are as deep on both sides of the simplex, but a cosine ends at -1 and 1.
    low, high = max(-1.0, simplex - strongest), min(1.0, simplex + strongest)
    number = 21
    wide = width / number
    parts = [
        _cell(left + i * wide, top, wide, low + (i + 0.5) / number * (high - low) - simplex, strongest, "")
        for i in range(number)
    ]
    parts.append(Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="frame"/>').format(
        left, top, width, wide))  # fmt: skip
    place, below = (simplex - low) / (high - low), top + wide + 13
    parts += [
        svg.text(left - 4, below, svg.svg_number(round(low, 2)), "tick", "end"),
        svg.text(left + place * width, below, f"simplex {simplex:.3g}", "tick", "start" if place < 0.1 else "middle"),
        svg.text(left + width, below, svg.svg_number(round(high, 2)), "tick", "end"),
    ]
    return parts


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
