"""Small pieces of SVG as text: marks, axes and ticks, styled by the report's own sheet.

Drawing libraries take seconds for a page of small figures and fix colors that a dark page cannot change;
these strings take milliseconds and follow the reader's theme. Every text is escaped on its way in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Axis:
    """A scale from data to [0, 1].

    Attributes:
        low: Data value at 0.
        high: Data value at 1, above ``low``.
        log: Whether the scale is logarithmic; both ends are then positive.
    """

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies; beyond the ends it is held at them."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values inside the axis, at most about ``most``."""
        if self.log:
            exponents = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            if len(exponents) < 3:
                for mantissas in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
                    near = [m * 10.0**e for e in range(-30, 31) for m in mantissas]
                    found = [tick for tick in near if self.low <= tick <= self.high]
                    if len(found) >= 3:
                        break
                return found
            return [10.0**e for e in exponents][:: max(1, math.ceil(len(exponents) / most))]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step_size = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step_size - 1e-9)
        return [n * step_size for n in range(first, math.floor(self.high / step_size + 1e-9) + 1)]


def axis_over(values: Sequence[float], *, log: bool = False, margin: float = 0.05) -> Axis:
    """Return an axis that covers the finite values with a margin, never empty."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (0.1, 1.0)
    if log:
        wide = max((high / low) ** margin, 1.1)
        return Axis(low / wide, high * wide, log=True)
    wide = (high - low) * margin or max(abs(high), 1.0) * margin
    return Axis(low - wide, high + wide)


def svg_number(value: float) -> str:
    """Write a coordinate or tick without trailing zeros."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def line(x1: str | float, y1: str | float, x2: str | float, y2: str | float, kind: str) -> Markup:
    """A straight line; coordinates are numbers or percentages."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(*map(_at, (x1, y1, x2, y2)), kind)


def rect(x: str | float, y: str | float, width: str | float, height: str | float, kind: str) -> Markup:
    """A filled rectangle."""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"/>').format(
        *map(_at, (x, y, width, height)), kind
    )


def circle(x: str | float, y: str | float, radius: float, kind: str, title: str = "") -> Markup:
    """A dot, with a title that shows on hover."""
    inner = Markup("<title>{}</title>").format(title) if title else Markup("")
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}">{}</circle>').format(
        _at(x), _at(y), svg_number(radius), kind, inner
    )


def text(x: str | float, y: str | float, words: str, kind: str, anchor: str = "middle") -> Markup:
    """Words at a point."""
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(
        _at(x), _at(y), kind, anchor, words
    )


def polyline(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """A line through points."""
    return Markup('<polyline points="{}" class="{}"/>').format(_points(points), kind)


def polygon(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    """A filled shape."""
    return Markup('<polygon points="{}" class="{}"/>').format(_points(points), kind)


def picture(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    """A picture that scales with its place, described by a label for those who do not see it."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        svg_number(width), svg_number(height), label, joined(parts)
    )


def joined(parts: Sequence[Markup]) -> Markup:
    """Put pieces together."""
    return Markup("").join(parts)


def percent(share: float) -> str:
    """Write a place as a percentage, which lets a figure stretch while its text does not."""
    return f"{100 * share:.3f}%"


def _at(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
