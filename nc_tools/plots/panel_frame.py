"""The frame of a plot: a pair of axes with grid, ticks and names, and the key (legend) of the curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from nc_tools._support.printable import printable
from nc_tools.plots import svg
from nc_tools.plots.axis import Axis

Curve = Sequence[tuple[float, float]]
"""Points (x, y) in the units of the data."""


class Margins(NamedTuple):
    """Widths of the margins around the plotting area, in the picture's units."""

    left: float = 34.0
    right: float = 12.0
    top: float = 22.0
    bottom: float = 34.0


DEFAULT_MARGINS = Margins()


@dataclass(frozen=True)
class Frame:
    """The frame of a plot: a pair of axes in a picture.

    Attributes:
        x: Horizontal axis.
        y: Vertical axis.
        width: Width of the picture.
        height: Height of the picture.
        margins: Space for ticks and axis names.
    """

    x: Axis
    y: Axis
    width: float = 260.0
    height: float = 190.0
    margins: Margins = DEFAULT_MARGINS

    @property
    def right(self) -> float:
        """Horizontal position of the right end of the plotting area."""
        return self.width - self.margins.right

    @property
    def bottom(self) -> float:
        """Vertical position of the lower end of the plotting area."""
        return self.height - self.margins.bottom

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Return the position in the picture of a pair of data values."""
        left, _, top, _ = self.margins
        return (
            left + self.x.place(x) * (self.right - left),
            self.bottom - self.y.place(y) * (self.bottom - top),
        )

    def points(self, curve: Curve) -> list[tuple[float, float]]:
        """Return the positions in the picture of the points of a curve."""
        return [self.point(x, y) for x, y in curve]

    def axes(
        self, x_name: str, y_name: str, *, x_scale: float = 1.0, y_scale: float = 1.0,
        x_ticks: Sequence[float] | None = None,
    ) -> list[Markup]:  # fmt: skip
        """Return the SVG of grid, ticks and names of the axes.

        Args:
            x_name: Written below the right end of the horizontal axis.
            y_name: Written above the vertical axis.
            x_scale: Factor by which data values are multiplied to get the numbers at the horizontal axis.
            y_scale: The same for the vertical axis.
            x_ticks: Data values of the horizontal axis that get ticks; round values by default.
        """
        left = self.margins.left
        parts = []
        for tick in self.y.ticks(4):
            y = self.point(self.x.low, tick)[1]
            parts += [
                svg.line(left, y, self.right, y, "grid"),
                svg.text(left - 5, y + 3.5, svg.svg_number(y_scale * tick), "tick", "end"),
            ]
        for tick in self.x.ticks(5) if x_ticks is None else x_ticks:
            x = self.point(tick, self.y.low)[0]
            parts += [
                svg.line(x, self.bottom, x, self.bottom + 3, "zero"),
                svg.text(x, self.bottom + 14, svg.svg_number(x_scale * tick), "tick"),
            ]
        parts.append(svg.line(left, self.bottom, self.right, self.bottom, "zero"))
        parts.append(svg.text(self.right, self.height - 4, x_name, "label", "end"))
        parts.append(svg.text(0, 11, y_name, "label", "start"))
        return parts

    def hover_picture(self, label: str, parts: Sequence[Markup], *, unit: str = "", y_scale: float = 1.0) -> Markup:
        """Return the SVG of a plot whose page can show the values of its curves under the pointer.

        Args:
            label: Description for screen readers.
            parts: Its marks; the curves are polylines in groups of ``svg.arm_group``.
            unit: Written after each value.
            y_scale: Factor of the values, as in ``axes``.
        """
        left, top = self.margins.left, self.margins.top
        return Markup(
            '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" data-area="{} {} {} {}" data-x="{} {} {}" '
            'data-y="{} {} {}" data-unit="{}">{}</svg>'
        ).format(
            *map(svg.svg_number, (self.width, self.height)), printable(label),
            *map(svg.svg_number, (left, top, self.right, self.bottom)),
            self.x.low, self.x.high, int(self.x.log),
            y_scale * self.y.low, y_scale * self.y.high, int(self.y.log),
            unit, svg.joined(parts),
        )  # fmt: skip


def curve_key(entries: Sequence[tuple[str, str]], left: float = 34.0, y: float = 9.0) -> list[Markup]:
    """Return the SVG of a key (legend) of curves in one row: a piece of each line, then its name.

    Args:
        entries: Class ("one" or "two") and name of each curve.
        left: Horizontal position of the row's left end.
        y: Vertical position of its lines.
    """
    parts = []
    for kind, name in entries:
        parts += [
            svg.line(left, y, left + 22, y, f"curve {kind}"),
            svg.circle(left + 11, y, 3, f"dot {kind}"),
            svg.text(left + 28, y + 4, name, "label", "start"),
        ]
        left += 44 + 6.2 * len(name)
    return parts
