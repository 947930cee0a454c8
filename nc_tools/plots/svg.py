"""Return SVG shapes as text: lines, dots, rectangles, words.

A drawing library needs seconds for a page of small figures, and it fixes colors that a dark page cannot change. These
strings take milliseconds, and the page's style sheet colors them. Every text is escaped, and so are the characters that
XML does not allow.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from nc_tools._support.printable import printable


def svg_number(value: float) -> str:
    """Return a coordinate or tick as text without trailing zeros."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def line(x1: str | float, y1: str | float, x2: str | float, y2: str | float, kind: str) -> Markup:
    """Return the SVG of a straight line; coordinates are numbers or percentages."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(*map(_at, (x1, y1, x2, y2)), kind)


def rect(
    x: str | float, y: str | float, width: str | float, height: str | float, kind: str, *,
    title: str = "", opacity: float | None = None,
) -> Markup:  # fmt: skip
    """Return the SVG of a filled rectangle, with a title that shows on hover."""
    opacity_part = Markup("") if opacity is None else Markup(' fill-opacity="{:.3f}"').format(opacity)
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"{}>{}</rect>').format(
        *map(_at, (x, y, width, height)), kind, opacity_part, _title(title)
    )


def circle(x: str | float, y: str | float, radius: float, kind: str, title: str = "") -> Markup:
    """Return the SVG of a dot, with a title that shows on hover."""
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}">{}</circle>').format(
        _at(x), _at(y), svg_number(radius), kind, _title(title)
    )


def text(
    x: str | float, y: str | float, words: str, kind: str, anchor: str = "middle", *, turned: bool = False
) -> Markup:
    """Return the SVG of a text at a point; if ``turned``, it reads upwards."""
    turn = Markup(' transform="rotate(-90 {} {})"').format(_at(x), _at(y)) if turned else Markup("")
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}"{}>{}</text>').format(
        _at(x), _at(y), kind, anchor, turn, printable(words)
    )


def polyline(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """Return the SVG of a line through points."""
    return Markup('<polyline points="{}" class="{}"/>').format(_points(points), kind)


def polygon(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """Return the SVG of a filled polygon."""
    return Markup('<polygon points="{}" class="{}"/>').format(_points(points), kind)


def group(x: float, y: float, parts: Sequence[Markup]) -> Markup:
    """Return the SVG of a group of shapes moved by (x, y)."""
    return Markup('<g transform="translate({},{})">{}</g>').format(svg_number(x), svg_number(y), joined(parts))


def picture(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    """Return the SVG of a picture that scales with its container; ``label`` describes it to screen readers."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        svg_number(width), svg_number(height), printable(label), joined(parts)
    )


def arm_group(number: int, name: str, parts: Sequence[Markup]) -> Markup:
    """Return the SVG of all marks of one arm. A page can hide the group and show the arm's name."""
    return Markup('<g data-arm="{}" data-name="{}">{}</g>').format(number, printable(name), joined(parts))


def joined(parts: Sequence[Markup]) -> Markup:
    """Concatenate the SVG of several shapes."""
    return Markup("").join(parts)


def percent(share: float) -> str:
    """Return a position in [0, 1] as a percentage, so that a plot can stretch while its text does not."""
    return f"{100 * share:.3f}%"


def _title(words: str) -> Markup:
    return Markup("<title>{}</title>").format(printable(words)) if words else Markup("")


def _at(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
